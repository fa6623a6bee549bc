#' Watch Adadelta at work
#'
#' Makes a callback for `fit()` that records what Adadelta does in each layer,
#' for a data frame and for figures, and that warns if something is wrong with
#' the training.
#'
#' The monitor makes a record after the first update, after every `every` updates,
#' and at the end. A second `fit()` with the same optimizer adds to the records;
#' with another optimizer they start anew. A record takes about as long as a small
#' training step, so a small `every` slows down the training of small models.
#'
#' The optimizer must come from [optimizer_adadelta()], alone or inside the
#' `LossScaleOptimizer` of Keras. With any other, `fit()` stops with an error before
#' anything has changed.
#'
#' @section Warnings: Warnings are of class `adadelta_warning`. Each is given
#'   once, when `fit()` has returned:
#'   * at a low and constant learning rate, such as the default of 0.001, the
#'     weights and the loss hardly change;
#'   * gradients are near the limit that keeps the averages finite;
#'   * calls are skipped, with `skip_nonfinite = TRUE`, because a gradient was
#'     `NaN` or infinite (a dynamic loss scale may skip some to find its size);
#'   * the averages became `NaN`, because a gradient was `NaN` or infinite;
#'   * a variable has had no gradient other than 0.
#'
#'   `vignette("monitoring", "adadelta")` shows them, and what to do.
#'
#' @param every The number of updates between two records: a whole number of at
#'   least 1. Default: 100.
#' @param sample The largest number of elements to read of each variable: a whole
#'   number of at least 1. They are chosen at random, and are the same in every
#'   record and every session. Smaller variables are read completely. Default:
#'   1000.
#' @param x,object A monitor, made by `adadelta_monitor()`.
#' @param variables The variables to draw: `NULL`, the default, for the largest
#'   variable of each layer, or a character vector of values of the column
#'   `variable`.
#' @param row.names,optional As in [as.data.frame()].
#' @param ... For `head()` and `tail()`, how many rows, as in [utils::head()];
#'   otherwise not used.
#'
#' @return `adadelta_monitor()` returns a callback, a Python object of class
#'   `adadelta.Monitor`, for the argument `callbacks` of a model's `fit()`.
#'
#'   `as.data.frame()` returns a data frame with a row for each record and
#'   variable, and the columns
#'   \item{step, update, skipped}{How many calls, updates and skipped calls the
#'     optimizer has made.}
#'   \item{epoch}{The epoch, from 1.}
#'   \item{loss}{The loss that Keras reports: the mean since the epoch began.}
#'   \item{learning_rate}{The learning rate of this step.}
#'   \item{variable, layer, size}{The path of the variable and of its layer,
#'     factors in the order of the model, and how many numbers the variable has.}
#'   \item{effective_rate_q05, effective_rate_q25, effective_rate_q50,
#'     effective_rate_q75, effective_rate_q95}{Quantiles of the effective
#'     learning rates, by which each gradient is multiplied: the learning rate
#'     times RMS\[step\] / RMS\[gradient\] of that element.}
#'   \item{gradient_rms}{The root of the mean of `square_avg`, the running average
#'     of squared gradients (see [optimizer_state()]). It starts at 0, so it is
#'     too small in about the first `1 / (1 - rho)` updates.}
#'   \item{update_rms}{The learning rate times the root of the mean of
#'     `acc_delta`, the running average of squared steps: how far an element
#'     moves in one update. It is too small at first as well.}
#'   \item{weight_rms}{The root of the mean of the squared weights.}
#'
#'   `summary()` returns the rows of the last record, one for each variable: a data
#'   frame of class `summary.adadelta.Monitor`, which prints a table that fits the
#'   width of the page. `head()` and `tail()` return the first and the last rows.
#'
#'   `autoplot()` returns a ggplot. `plot()` draws the same with base graphics and
#'   returns `x`, invisibly, as does `print()`; `format()` returns the lines that
#'   `print()` shows. Both pictures show the effective learning rates and
#'   `update_rms` over training, with a line for the median of each layer and a
#'   band for the middle 90 % of its weights.
#' @section Errors: It is an error of class `adadelta_error_argument` to give a
#'   bad argument, or to draw a monitor that has recorded nothing. For a monitor
#'   of an earlier R session, whose records are gone, the error has class
#'   `adadelta_error_state`.
#' @references
#' Zeiler, M. D. (2012). ADADELTA: An Adaptive Learning Rate Method.
#' \doi{10.48550/arXiv.1212.5701}; the picture is its Figure 2, by layer.
#' @seealso [adadelta_progress()] to see how far training has come,
#'   [optimizer_state()]
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#'
#' monitor <- adadelta_monitor(every = 10)
#' history <- model$fit(
#'   cars[, 2:3], cars[, 1, drop = FALSE],
#'   epochs = 50L, verbose = 0L, callbacks = list(monitor)
#' )
#' monitor
#' summary(monitor)
#' tail(as.data.frame(monitor)[c("update", "loss", "layer", "effective_rate_q50")])
#' plot(monitor)
adadelta_monitor <- function(every = 100L, sample = 1000L) {
  call <- sys.call()
  module <- core(call)
  call <- named_call(call, "adadelta_monitor")
  warn_later <- function(message) {
    called_by_python(defer(own_warning(sentence(message), call)))
  }
  made <- module$attempt("monitor", as_python(every), as_python(sample), warn_later)
  value_of(made, "argument", call)
}

#' @rdname adadelta_monitor
#' @export
as.data.frame.adadelta.Monitor <- function(x,
                                           row.names = NULL, # nolint: object_name_linter.
                                           optional = FALSE,
                                           ...) {
  check_session(x, method_call(sys.call(), "as.data.frame"))
  columns <- lapply(x$to_dict(), function(column) {
    if (length(column)) unlist(column, use.names = FALSE) else numeric()
  })
  # Paths in the order of the model, not of the alphabet.
  for (name in c("variable", "layer")) {
    columns[[name]] <- factor(columns[[name]], unique(columns[[name]]))
  }
  as.data.frame(columns, row.names = row.names, optional = optional)
}

#' @rdname adadelta_monitor
#' @exportS3Method ggplot2::autoplot
autoplot.adadelta.Monitor <- function(object, variables = NULL, ...) { # nolint: object_name_linter.
  shown <- shown_variables(object, variables, method_call(sys.call(), "autoplot"))
  # R CMD check does not know that ggplot2 finds variables in the data.
  .data <- ggplot2::.data
  quantities <- names(monitor_labels)
  rates <- data.frame(
    update = shown$update, layer = shown$label, quantity = quantities[[1]],
    low = shown$effective_rate_q05, middle = shown$effective_rate_q50,
    high = shown$effective_rate_q95
  )
  updates <- data.frame(
    update = shown$update, layer = shown$label, quantity = quantities[[2]],
    low = NA, middle = shown$update_rms, high = NA
  )
  long <- rbind(rates, updates)
  long$quantity <- factor(long$quantity, quantities)
  ggplot2::ggplot(long, ggplot2::aes(x = .data[["update"]])) +
    # Where bands overlap, their edges tell them apart.
    ggplot2::geom_ribbon(
      ggplot2::aes(
        ymin = .data[["low"]], ymax = .data[["high"]], fill = .data[["layer"]],
        color = .data[["layer"]]
      ),
      data = long[long$quantity == quantities[[1]], ], alpha = 0.12, linewidth = 0.25
    ) +
    ggplot2::geom_line(
      ggplot2::aes(y = .data[["middle"]], color = .data[["layer"]]), linewidth = 0.8, na.rm = TRUE
    ) +
    ggplot2::facet_wrap(
      "quantity", ncol = 1, scales = "free_y", labeller = ggplot2::as_labeller(monitor_labels)
    ) +
    ggplot2::scale_y_log10() +
    # The colors run from the first layer to the last, and are readable on white.
    ggplot2::scale_color_viridis_d(end = 0.85, aesthetics = c("color", "fill")) +
    ggplot2::labs(x = "updates so far", y = "size (logarithmic)", color = NULL, fill = NULL) +
    ggplot2::theme_minimal() +
    ggplot2::theme(legend.justification = "top")
}

# The panels of a picture, and the meaning of their lines and bands.
monitor_labels <- c(
  "Effective learning rate" = "Effective learning rate: median, and band of the middle 90 %",
  "Update (RMS)" = "Update (root mean square)"
)

#' @rdname adadelta_monitor
#' @export
plot.adadelta.Monitor <- function(x, variables = NULL, ...) {
  shown <- shown_variables(x, variables, method_call(sys.call(), "plot"))
  layers <- levels(shown$label)
  # The colors of autoplot().
  shades <- round(seq(1, 85, length.out = length(layers)))
  colors <- grDevices::hcl.colors(100, "viridis")[shades]
  # The legend is to the right of the upper panel. A character is about half as wide as its line is
  # high.
  right <- 0.8 * max(nchar(layers)) / 2 + 4
  before <- graphics::par(
    mfrow = c(2, 1), mar = c(4, 5.5, 2, right), mgp = c(2.5, 0.8, 0), las = 1, cex.main = 1
  )
  on.exit(graphics::par(before))
  panel <- function(middle, band, title, label) {
    values <- unlist(shown[c(middle, band)])
    graphics::plot(
      range(shown$update), range(values, na.rm = TRUE), type = "n", log = "y", bty = "l",
      xlab = "updates so far", ylab = "", main = title
    )
    graphics::title(ylab = label, line = 4)
    for (index in seq_along(layers)) {
      rows <- shown[shown$label == layers[[index]], ]
      color <- colors[[index]]
      if (length(band)) {
        known <- rows[stats::complete.cases(rows[band]), ]
        graphics::polygon(
          c(known$update, rev(known$update)), c(known[[band[[1]]]], rev(known[[band[[2]]]])),
          col = grDevices::adjustcolor(color, 0.12), border = NA
        )
        graphics::matlines(rows$update, rows[band], col = color, lty = 1, lwd = 0.5)
      }
      graphics::lines(rows$update, rows[[middle]], col = color, lwd = 2)
    }
  }
  panel(
    "effective_rate_q50", c("effective_rate_q05", "effective_rate_q95"),
    monitor_labels[["Effective learning rate"]], "rate"
  )
  graphics::legend(
    max(shown$update), 10^graphics::par("usr")[[4]], layers,
    col = colors, lwd = 2, bty = "n", cex = 0.8, xpd = NA
  )
  panel("update_rms", NULL, monitor_labels[["Update (RMS)"]], "update")
  invisible(x)
}

#' @rdname adadelta_monitor
#' @export
print.adadelta.Monitor <- function(x, ...) {
  cat(format(x), sep = "\n")
  invisible(x)
}

#' @rdname adadelta_monitor
#' @export
format.adadelta.Monitor <- function(x, ...) {
  if (is_of_earlier_session(x)) {
    return("<Adadelta monitor of an earlier session; make it again with adadelta_monitor()>")
  }
  data <- as.data.frame(x)
  if (nrow(data) == 0) return(c("<Adadelta monitor>", "  nothing recorded yet"))
  last <- last_record(data)
  rates <- paste0(
    "  effective learning rate ", vapply(last$effective_rate_q50, three_digits, ""), ", update ",
    vapply(last$update_rms, three_digits, "")
  )
  room <- getOption("width") - max(nchar(rates)) - 2L
  c(
    "<Adadelta monitor>",
    in_width(paste0(length(unique(data$step)), " records, to ", format_record(last))),
    paste0("  ", format(short_names(as.character(last$variable), room)), rates)
  )
}

#' @rdname adadelta_monitor
#' @export
summary.adadelta.Monitor <- function(object, ...) {
  check_session(object, method_call(sys.call(), "summary"))
  last <- last_record(as.data.frame(object))
  class(last) <- c("summary.adadelta.Monitor", "data.frame")
  last
}

#' @rdname adadelta_monitor
#' @export
print.summary.adadelta.Monitor <- function(x, ...) {
  rates <- paste0("effective_rate_q", c("05", "50", "95"))
  names(rates) <- c("5%", "median", "95%")
  rms <- c(gradient = "gradient_rms", update = "update_rms", weight = "weight_rms")
  # A part of a summary that lacks columns prints as a plain data frame.
  if (!all(c("variable", rates, rms, "update", "epoch", "loss", "learning_rate") %in% names(x))) {
    print(as.data.frame(x), ...)
    return(invisible(x))
  }
  of_x <- function(columns) stats::setNames(x[columns], names(columns))
  table <- format_rates(x["variable"], of_x(rates), of_x(rms), 2L)
  if (max(nchar(table)) > getOption("width")) {
    table <- c(
      format_rates(x["variable"], of_x(rates), NULL, 2L), "",
      format_rates(x["variable"], NULL, of_x(rms), 2L)
    )
  }
  state <- if (nrow(x)) paste("last record: to", format_record(x)) else "nothing recorded yet"
  cat("<Adadelta monitor>", in_width(state), sep = "\n")
  if (nrow(x)) cat("", table, sep = "\n")
  invisible(x)
}

#' @rdname adadelta_monitor
#' @importFrom utils head
#' @export
head.adadelta.Monitor <- function(x, ...) {
  check_session(x, method_call(sys.call(), "head"))
  utils::head(as.data.frame(x), ...)
}

#' @rdname adadelta_monitor
#' @importFrom utils tail
#' @export
tail.adadelta.Monitor <- function(x, ...) {
  check_session(x, method_call(sys.call(), "tail"))
  utils::tail(as.data.frame(x), ...)
}

# One row for each variable, or none if nothing is recorded yet.
last_record <- function(data) data[data$step == max(data$step, -Inf), ]

format_record <- function(last) {
  paste0(
    "update ", last$update[[1]], " in epoch ", last$epoch[[1]], ": loss ",
    three_digits(last$loss[[1]]), ", learning rate ", three_digits(last$learning_rate[[1]])
  )
}

three_digits <- function(value) format(signif(value, 3))

in_width <- function(text) strwrap(text, getOption("width"), indent = 2, exdent = 2)

# The rows of a picture, with their labels. 0 becomes NA, since it has no logarithm.
shown_variables <- function(monitor, variables, call) {
  check_session(monitor, call)
  if (!is.null(variables)) variables <- as.list(as.character(variables))
  labels <- unlist(value_of(core(call)$attempt("plotted", monitor, variables), "argument", call))
  data <- as.data.frame(monitor)
  data <- data[data$variable %in% labels, ]
  data$label <- factor(data$variable, labels, names(labels))
  drawn <- grep("^effective_rate|_rms$", names(data))
  data[drawn] <- lapply(data[drawn], function(column) replace(column, !(column > 0), NA))
  data
}
