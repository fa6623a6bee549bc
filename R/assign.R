#' Change an optimizer's settings
#'
#' Sets the learning rate of an optimizer at any time, and before the optimizer
#' is built, which is when training begins, its other settings.
#'
#' @param x An optimizer made by [optimizer_adadelta()].
#' @param name An argument of [optimizer_adadelta()], or another attribute that a
#'   Keras optimizer has.
#' @param value The new value: for an argument, one that [optimizer_adadelta()]
#'   takes.
#' @return `x`, changed.
#' @section Errors: A value that [optimizer_adadelta()] does not take, a name that
#'   it does not know, and a setting that can no longer be changed are errors of
#'   class `adadelta_error_argument`; nothing has changed then. An optimizer of an
#'   earlier session is one of class `adadelta_error_state`.
#' @seealso [learning_rate()] for the rate as a number,
#'   [update.adadelta.Adadelta()] makes a new optimizer with other settings.
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
  # R has put `*tmp*` in the place of the user's variable.
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
