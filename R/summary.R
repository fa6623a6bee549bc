#' Summarize the effective learning rates of an optimizer
#'
#' Returns a table of the effective learning rates of each variable. The
#' effective learning rate of an element is the learning rate, times the root
#' mean square (RMS) of its recent updates, divided by the RMS of its recent
#' gradients. Adadelta multiplies the next gradient by about this number. It is
#' normal that effective learning rates differ by orders of magnitude between
#' layers. A variable whose effective learning rates are all tiny has almost
#' stopped learning.
#'
#' The averages start at 0 and are too small in about the first `1 / (1 - rho)`
#' updates. The effective learning rate of an element that had no gradient yet is
#' the learning rate itself. The optimizer does not change; an R function as
#' learning rate is called once.
#'
#' @param object An optimizer made by [optimizer_adadelta()].
#' @param x A summary.
#' @param digits The number of significant digits to show: a whole number from 1
#'   to 22. Default: 2.
#' @param ... Not used.
#' @return `summary()` returns a data frame of class `summary.adadelta.Adadelta`
#'   with a row for each variable, and none before the optimizer is built:
#'   \item{variable}{Its name.}
#'   \item{shape}{Its dimensions, such as `"784x128"`, or `"scalar"`.}
#'   \item{parameters}{How many numbers it has.}
#'   \item{rate_min, rate_q25, rate_median, rate_q75, rate_max}{The quantiles of
#'     the effective learning rate over its elements.}
#'   \item{gradient_rms}{The root of the mean over its elements of the running
#'     average of squared gradients, without loss scale and after clipping.}
#'   \item{update_rms}{The same for squared updates, times the learning rate: how
#'     far its elements move per update.}
#'   The numbers of a variable without elements are `NaN`. The attribute
#'   `learning_rate` has the rate of the next step, `NULL` before the optimizer is
#'   built, and `progress` says how far the optimizer has come.
#'
#'   `print()` returns `x`, invisibly. It shows two significant digits, and fits
#'   the names of the variables to the width of the page. [as.data.frame()]
#'   makes a plain data frame of the summary.
#' @section Errors: An optimizer of an earlier session is an error of class
#'   `adadelta_error_state`, since its Python object is gone. Bad `digits` are an
#'   error of class `adadelta_error_argument`.
#' @references
#' Zeiler, M. D. (2012). ADADELTA: An Adaptive Learning Rate Method, equation 14.
#' \doi{10.48550/arXiv.1212.5701}
#' @seealso [plot.adadelta.Adadelta()] draws it; [optimizer_state()] has the
#'   averages themselves.
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(
#'   keras$layers$Input(list(2L)), keras$layers$Dense(8L, "relu"),
#'   keras$layers$Dense(1L)
#' ))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#' history <- model$fit(
#'   cars[, 2:3], cars[, 1, drop = FALSE], epochs = 20L, verbose = 0L
#' )
#' summary(model$optimizer)
#' as.data.frame(summary(model$optimizer))[, c("variable", "rate_median")]
summary.adadelta.Adadelta <- function(object, ...) {
  summary_of(object, method_call(sys.call(), "summary"))
}

summary_of <- function(object, call) {
  made <- core_call("summary", call, object)
  columns <- made$columns
  table <- data.frame(
    variable = as.character(unlist(columns$variable)),
    shape = as.character(unlist(columns$shape)),
    parameters = as.numeric(unlist(columns$parameters))
  )
  numbers <- setdiff(names(columns), names(table))
  table[numbers] <- lapply(columns[numbers], function(column) as.numeric(unlist(column)))
  structure(
    table,
    class = c("summary.adadelta.Adadelta", "data.frame"),
    learning_rate = made$learning_rate,
    progress = made$progress
  )
}

#' @rdname summary.adadelta.Adadelta
#' @export
print.summary.adadelta.Adadelta <- function(x, digits = 2L, ...) {
  # print() accepts up to 22 digits. No number has more.
  if (!are_finite(digits, 1) || !digits %in% 1:22) {
    call <- method_call(sys.call(), "print")
    refuse("digits", "a whole number from 1 to 22", digits, call)
  }
  if (!all(summary_columns %in% names(x))) {
    print(as.data.frame(x), ...)
    return(invisible(x))
  }
  cat(format_summary_head(x), sep = "\n")
  if (nrow(x)) cat("", format_summary_table(x, digits), sep = "\n")
  invisible(x)
}

rate_columns <- c("rate_min", "rate_q25", "rate_median", "rate_q75", "rate_max")
summary_columns <- c("variable", "shape", rate_columns, "gradient_rms", "update_rms")

# A part of a summary may have lost these attributes.
format_summary_head <- function(x) {
  rate <- attr(x, "learning_rate")
  shown_optimizer(attr(x, "progress"), if (!is.null(rate)) paste("learning rate", format(rate)))
}

format_summary_table <- function(x, digits) {
  headings <- c("min", "25%", "median", "75%", "max", "gradient", "update")
  numbers <- stats::setNames(x[summary_columns[-(1:2)]], headings)
  format_rates(x[c("variable", "shape")], numbers[1:5], numbers[6:7], digits)
}

# The lines of a table of variables, quantiles of their effective rates, and RMS values. Each
# argument is a data frame or a list of columns by heading, and may have no columns.
format_rates <- function(variables, rates, rms, digits) {
  headed <- function(columns, format) {
    Map(function(heading, column) c(heading, format(column)), names(columns), columns)
  }
  numbers <- headed(c(rates, rms), function(column) formatC(column, digits = digits, format = "g"))
  numbers <- lapply(numbers, format, justify = "right")
  width <- function(columns) sum(vapply(columns, function(column) max(nchar(column)) + 1L, 0L))
  left <- headed(variables, as.character)
  room <- getOption("width") - width(left[-1]) - width(numbers) - 1L
  left[[1]][-1] <- short_names(left[[1]][-1], room)
  left <- lapply(left, format)
  # A line above the headings says what the quantiles and the last columns are.
  own <- seq_along(rates)
  rate <- if (length(rates)) centered("effective learning rate", width(numbers[own]) - 1L)
  rms <- if (length(rms)) {
    centered("RMS of", width(if (length(own)) numbers[-own] else numbers) - 1L)
  }
  above <- paste0(strrep(" ", width(left)), paste(c(rate, rms), collapse = " "))
  sub(" +$", "", c(above, do.call(paste, unname(c(left, numbers)))))
}

centered <- function(text, width) {
  room <- max(width - nchar(text), 0)
  paste0(strrep(" ", room %/% 2), text, strrep(" ", room - room %/% 2))
}

# Shortens paths to `width`: first removes the parts at their start that all of them share, and then
# cuts off their beginning.
short_names <- function(paths, width) {
  if (length(paths) == 0) return(paths)
  width <- max(width, 12L)
  parts <- strsplit(paths, "/", fixed = TRUE)
  while (max(nchar(paths)) > width && min(lengths(parts)) > 1 &&
           length(unique(vapply(parts, `[[`, "", 1L))) == 1) {
    parts <- lapply(parts, `[`, -1L)
    paths <- vapply(parts, paste, "", collapse = "/")
  }
  long <- nchar(paths) > width
  size <- nchar(paths[long])
  paths[long] <- paste0("...", substr(paths[long], size - width + 4L, size))
  paths
}
