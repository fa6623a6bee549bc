#' Draw the effective learning rates of each variable
#'
#' Draws the table of [summary.adadelta.Adadelta()] with a box for each variable.
#' The box reaches from the first to the third quartile of the effective learning
#' rates of its elements, with a line at the median; the whiskers reach to the
#' smallest and the largest. The axis is logarithmic, unless the learning rate is
#' 0. A dashed line shows the learning rate, which is also the effective one of an
#' element without gradients. A line of text in the picture explains this.
#'
#' `plot()` draws with base graphics, and `ggplot2::autoplot()` with ggplot2.
#' Variables without elements are left out. If the names take too much room, the
#' parts at the start of their paths that all of them share are left out.
#'
#' @param x,object An optimizer made by [optimizer_adadelta()] that is built, or
#'   its [summary()].
#' @param main,xlab The title, and the label of the axis.
#' @param ... For `plot()`, further arguments of [graphics::bxp()], such as
#'   `boxfill`; for `autoplot()` not used.
#' @return `plot()` returns the summary, invisibly; `autoplot()` a ggplot.
#' @section Errors: It is an error of class `adadelta_error_state` if the
#'   optimizer is not built or is of an earlier session, or if its variables have
#'   no rates.
#' @seealso [summary.adadelta.Adadelta()] for the numbers.
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
#' plot(model$optimizer, boxfill = "grey90")
#' @examplesIf keras_available() && requireNamespace("ggplot2", quietly = TRUE)
#' ggplot2::autoplot(model$optimizer)
plot.adadelta.Adadelta <- function(x, main = NULL, xlab = "effective learning rate", ...) {
  call <- method_call(sys.call(), "plot")
  shown <- summary_of(x, call)
  draw_rates(drawable(shown, call), main, xlab, ...)
  invisible(shown)
}

#' @rdname plot.adadelta.Adadelta
#' @export
plot.summary.adadelta.Adadelta <- function(x, main = NULL, xlab = "effective learning rate", ...) {
  draw_rates(drawable(x, method_call(sys.call(), "plot")), main, xlab, ...)
  invisible(x)
}

#' @rdname plot.adadelta.Adadelta
#' @exportS3Method ggplot2::autoplot
autoplot.adadelta.Adadelta <- function(object, ...) { # nolint: object_name_linter.
  call <- method_call(sys.call(), "autoplot")
  ggplot_of_rates(drawable(summary_of(object, call), call))
}

#' @rdname plot.adadelta.Adadelta
#' @exportS3Method ggplot2::autoplot
# nolint start: object_name_linter, object_length_linter.
autoplot.summary.adadelta.Adadelta <- function(object, ...) {
  ggplot_of_rates(drawable(object, method_call(sys.call(), "autoplot")))
}
# nolint end

# The rows that can be drawn, or an error.
drawable <- function(summary, call) {
  if (!all(c("variable", rate_columns) %in% names(summary))) {
    fail("this part of a summary lacks columns that are drawn", "state", call)
  }
  has_rates <- stats::complete.cases(summary[rate_columns])
  if (!any(has_rates)) {
    # Python's summary has no learning rate before the optimizer is built.
    built <- is.null(attr(summary, "progress")) || !is.null(attr(summary, "learning_rate"))
    text <- if (built) "there are no effective rates to draw" else not_built("effective rates")
    fail(text, "state", call)
  }
  attributes <- attributes(summary)
  rows <- as.data.frame(summary)[has_rates, ]
  attr(rows, "learning_rate") <- attributes$learning_rate
  rows
}

# Explains the parts of the picture.
key_of_rates <- "box: middle half, with the median; whiskers: all; dashed: the learning rate"

is_logarithmic <- function(rows) all(rows$rate_min > 0 & is.finite(rows$rate_max))

draw_rates <- function(rows, main, xlab, ..., ylim = NULL) {
  # A third of the page for names, at most; a character is about half as wide as its line is high.
  room <- floor(graphics::par("din")[[1]] / 3 / (graphics::par("csi") / 2))
  names <- short_names(rows$variable, room)
  margins <- graphics::par("mar")
  margins[[2]] <- max(nchar(names)) / 2 + 2
  if (is.null(main)) margins[[3]] <- 2
  before <- graphics::par(mar = margins)
  on.exit(graphics::par(before))
  # From the top, as in the table.
  rows <- rows[rev(seq_len(nrow(rows))), ]
  rates <- as.matrix(rows[rate_columns])
  boxes <- list(
    stats = t(rates), n = rows$parameters, out = numeric(), group = numeric(), names = rows$variable
  )
  settings <- list(
    boxes, horizontal = TRUE, show.names = FALSE, main = main, xlab = xlab, ylab = "",
    log = if (is_logarithmic(rows)) "x" else "", whisklty = 1,
    ylim = if (is.null(ylim)) range(rates, attr(rows, "learning_rate")) else ylim
  )
  do.call(graphics::bxp, utils::modifyList(settings, list(...)))
  graphics::title(ylab = "variable", line = margins[[2]] - 1)
  graphics::mtext(key_of_rates, side = 3, line = 0.3, cex = 0.8 * graphics::par("cex"))
  size <- min(1, graphics::par("pin")[[2]] / (nrow(rows) * graphics::par("csi")))
  graphics::axis(2, seq_len(nrow(rows)), rev(names), las = 1, cex.axis = max(size, 0.4))
  graphics::abline(v = attr(rows, "learning_rate"), lty = 2)
}

ggplot_of_rates <- function(rows) {
  .data <- ggplot2::.data
  rows$variable <- factor(rows$variable, levels = rev(rows$variable))
  plot <- ggplot2::ggplot(rows, ggplot2::aes(
    y = .data$variable, xmin = .data$rate_min, xlower = .data$rate_q25,
    xmiddle = .data$rate_median, xupper = .data$rate_q75, xmax = .data$rate_max
  )) +
    ggplot2::geom_boxplot(stat = "identity", orientation = "y", width = 0.6) +
    ggplot2::geom_vline(xintercept = attr(rows, "learning_rate"), linetype = "dashed") +
    ggplot2::labs(x = "effective learning rate", y = "variable", subtitle = key_of_rates) +
    ggplot2::theme_minimal() +
    ggplot2::theme(plot.title.position = "plot")
  if (is_logarithmic(rows)) plot + ggplot2::scale_x_log10() else plot
}
