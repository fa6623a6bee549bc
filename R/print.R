#' Print an Adadelta optimizer
#'
#' Shows the arguments that differ from the defaults of [optimizer_adadelta()],
#' and how many steps the optimizer has made.
#'
#' @param x An optimizer made by [optimizer_adadelta()].
#' @param ... Not used.
#' @return `print()` returns `x`, invisibly; `format()` returns the lines that
#'   `print()` shows.
#' @export
#' @examplesIf keras_available()
#' print(optimizer_adadelta(learning_rate = 1, weight_decay = 0.01))
print.adadelta.Adadelta <- function(x, ...) {
  cat(format(x), sep = "\n")
  invisible(x)
}

#' @rdname print.adadelta.Adadelta
#' @export
format.adadelta.Adadelta <- function(x, ...) {
  if (is_of_earlier_session(x)) {
    return("<Adadelta optimizer of an earlier session; make it again with optimizer_adadelta()>")
  }
  config <- core()$settings(x)
  # As many digits as R shows. A rate that Keras has multiplied in float32 has more.
  if (is.numeric(config$learning_rate)) config$learning_rate <- signif(config$learning_rate, 7L)
  defaults <- core()$DEFAULTS
  is_default <- mapply(identical, config, defaults[names(config)])
  room <- getOption("width") - max(nchar(names(config)[!is_default]), 0L) - 4L
  settings <- vapply(config[!is_default], format_setting, "", width = room)
  shown_optimizer(
    if (length(settings)) paste0(format(names(settings)), "  ", settings),
    if (all(is_default)) "all settings at their defaults" else "the rest at its defaults",
    core()$progress(x)
  )
}

# The lines that show an optimizer or its summary.
shown_optimizer <- function(...) c("<Adadelta optimizer>", paste0("  ", c(...), recycle0 = TRUE))

# The code of an R function is shown as far as `width` has room for it.
format_setting <- function(value, width = Inf) {
  if (!is_serialized(value)) return(r_code(value))
  config <- value$config
  # Keras keeps only the name of a Python function.
  if (is.character(config)) return(paste(value$class_name, config))
  # An R function is kept with its code.
  if (!is.null(config$code)) return(shortened(config$code, width))
  if (identical(config$name, value$class_name)) config$name <- NULL
  config <- config[!vapply(config, is.null, NA)]
  settings <- paste(names(config), "=", vapply(config, r_code, ""), collapse = ", ")
  paste0(value$class_name, "(", settings, ")")
}
