#' Change an optimizer's settings
#'
#' You can set the learning rate of an optimizer at any time, and its other
#' settings before the optimizer is built, which happens when training begins.
#'
#' @param x An optimizer made by [optimizer_adadelta()].
#' @param name An argument of [optimizer_adadelta()], or another attribute of a
#'   Keras optimizer.
#' @param value The new value: for an argument, one that [optimizer_adadelta()]
#'   accepts.
#' @return `x`, changed.
#' @section Errors: It is an error of class `adadelta_error_argument` if
#'   [optimizer_adadelta()] does not accept the value, if the name is unknown, or
#'   if the setting can no longer be changed. Nothing has changed then. For an
#'   optimizer of an earlier session, the error has class `adadelta_error_state`.
#' @seealso [learning_rate()] for the rate as a number,
#'   [update.adadelta.Adadelta()] for a new optimizer with other settings.
#' @name assign_adadelta
#' @examplesIf keras_available()
#' optimizer <- optimizer_adadelta()
#' optimizer$learning_rate <- 0.5
#' optimizer$rho <- 0.9
#' optimizer
#'
#' try(optimizer$rho <- 5)
#' try(optimizer$learning_rte <- 0.5)
NULL

#' @rdname assign_adadelta
#' @export
# nolint start: object_name_linter.
`$<-.adadelta.Adadelta` <- function(x, name, value) {
  # R has replaced the user's variable by `*tmp*`.
  shown <- if (is_plain_scalar(value)) value else quote(value)
  call <- call("<-", call("$", quote(optimizer), as.name(name)), shown)
  check_session(x, call)
  module <- core(call)
  argument <- if (name == "lr") "learning_rate" else name
  if (argument %in% module$ARGUMENT_NAMES) value <- as_python_argument(value, argument, call)
  value_of(module$attempt("assign", x, name, value), "argument", call)
  invisible(x)
}

#' @rdname assign_adadelta
#' @export
`[[<-.adadelta.Adadelta` <- `$<-.adadelta.Adadelta`
# nolint end
