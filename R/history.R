#' Training history as a data frame and as a picture
#'
#' Methods for the history that `model$fit()` returns under plain reticulate. The
#' R package keras3 returns an object of its own class, with its own methods.
#'
#' @param x,object The return value of `model$fit()`: a Python object of the
#'   class `History` of Keras.
#' @param row.names,optional As in [as.data.frame()].
#' @param ... For `plot()`, further arguments of [graphics::plot.default()], such
#'   as `log = "y"`; otherwise not used.
#' @return `as.data.frame()` returns a data frame with a row for each epoch,
#'   metric and kind of data, and with the same columns as in the package keras3:
#'   \item{epoch}{The epoch, from 1; `NA` if a metric was not computed in every
#'     epoch, as with `validation_freq`.}
#'   \item{value}{The value of the metric.}
#'   \item{metric}{The name of the metric, such as `loss`: a factor in the order of
#'     Keras.}
#'   \item{data}{A factor: `"training"` or `"validation"`.}
#'
#'   Metrics that are not single numbers are left out.
#'
#'   `plot()` draws a panel for each metric with base graphics, and returns the data
#'   frame, invisibly; `autoplot()` returns a ggplot of the same.
#' @section Errors: It is an error of class `adadelta_error_state` to use a
#'   history of an earlier R session, whose numbers are gone, or to draw a history
#'   without numbers.
#' @seealso [adadelta_monitor()] for what the optimizer did in each layer.
#' @name history
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse", metrics = list("mae"))
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#' history <- model$fit(
#'   cars[, 2:3], cars[, 1, drop = FALSE],
#'   epochs = 20L, validation_split = 0.25, verbose = 0L
#' )
#' tail(as.data.frame(history))
#' plot(history)
NULL

# The name that reticulate gives to the class.
class_of_history <- "keras.src.callbacks.history.History"

#' @rdname history
#' @export
# nolint start: object_name_linter, object_length_linter.
as.data.frame.keras.src.callbacks.history.History <- function(x, row.names = NULL,
                                                              optional = FALSE, ...) {
  # nolint end
  check_session(x, method_call(sys.call(), "as.data.frame"))
  values <- lapply(in_r(x$history), function(column) unlist(in_r(column), use.names = FALSE))
  # The attribute is missing until training begins.
  has_begun <- reticulate::py_has_attr(x, "epoch")
  epochs <- as.integer(if (has_begun) unlist(in_r(x$epoch))) + 1L
  values <- Filter(function(column) is.numeric(column) && length(column) <= length(epochs), values)
  metrics <- sub("^val_", "", names(values))
  lengths <- lengths(values)
  shown <- data.frame(
    epoch = as.integer(unlist(lapply(lengths, function(number) {
      if (number == length(epochs)) epochs else rep(NA, number)
    }))),
    value = as.numeric(unlist(values)),
    metric = factor(rep(metrics, lengths), unique(metrics)),
    data = factor(
      rep(ifelse(grepl("^val_", names(values)), "validation", "training"), lengths),
      c("training", "validation")
    )
  )
  as.data.frame(shown, row.names = row.names, optional = optional)
}

# Whether reticulate has converted a value depends on how its module was imported.
in_r <- function(value) if (is_python(value)) reticulate::py_to_r(value) else value

#' @rdname history
#' @export
plot.keras.src.callbacks.history.History <- function(x, ...) { # nolint: object_length_linter.
  shown <- drawable_history(x, method_call(sys.call(), "plot"))
  metrics <- levels(shown$metric)
  before <- graphics::par(
    mfrow = c(length(metrics), 1), mar = c(4, 4.5, 2.5, 1), las = 1
  )
  on.exit(graphics::par(before))
  colors <- grDevices::hcl.colors(3, "viridis")[1:2]
  for (metric in metrics) {
    rows <- shown[shown$metric == metric, ]
    draw <- function(..., xlab = "epoch", ylab = metric, type = "n", bty = "l") {
      graphics::plot(
        rows$epoch, rows$value, xlab = xlab, ylab = ylab, type = type, bty = bty, ...
      )
    }
    draw(...)
    kinds <- levels(droplevels(rows$data))
    for (kind in kinds) {
      number <- match(kind, levels(rows$data))
      of_kind <- rows[rows$data == kind, ]
      graphics::lines(of_kind$epoch, of_kind$value, col = colors[[number]], lty = number, lwd = 1.5)
    }
    if (metric == metrics[[1]]) {
      numbers <- match(kinds, levels(rows$data))
      # Above the panel, where no line is.
      graphics::legend(
        "bottomright", kinds, col = colors[numbers], lty = numbers, lwd = 1.5, bty = "n",
        horiz = TRUE, inset = c(0, 1), xpd = NA
      )
    }
  }
  invisible(shown)
}

#' @rdname history
#' @exportS3Method ggplot2::autoplot
# nolint start: object_name_linter, object_length_linter.
autoplot.keras.src.callbacks.history.History <- function(object, ...) {
  # nolint end
  shown <- drawable_history(object, method_call(sys.call(), "autoplot"))
  # R CMD check does not know that ggplot2 finds variables in the data.
  .data <- ggplot2::.data
  ggplot2::ggplot(shown, ggplot2::aes(
    x = .data$epoch, y = .data$value, color = .data$data, linetype = .data$data
  )) +
    ggplot2::geom_line() +
    # The names of the panels are those of their axes.
    ggplot2::facet_wrap("metric", ncol = 1, scales = "free_y", strip.position = "left") +
    ggplot2::scale_color_viridis_d(end = 0.6) +
    ggplot2::labs(x = "epoch", y = NULL, color = NULL, linetype = NULL) +
    ggplot2::theme_minimal() +
    ggplot2::theme(strip.placement = "outside")
}

drawable_history <- function(history, call) {
  check_session(history, call)
  shown <- as.data.frame(history)
  shown <- shown[!is.na(shown$epoch), ]
  if (!nrow(shown)) fail("this history has no numbers to draw", "state", call)
  shown$metric <- droplevels(shown$metric)
  shown
}
