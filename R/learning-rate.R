#' The learning rate of an optimizer
#'
#' `learning_rate()` returns the learning rate of the next step as a number,
#' whether it was given as a number, as a schedule or as a function, and also
#' after a callback has changed it. `learning_rate<-` sets it, before, between and
#' after calls of `fit()`; the running averages stay as they are.
#'
#' `optimizer$learning_rate` is a Python object: the variable in which Keras keeps
#' the rate, in single precision. There 0.001 is 0.0010000000474974513;
#' `learning_rate()` returns 0.001. If the learning rate is an R function,
#' `learning_rate()` calls it.
#'
#' @param optimizer An optimizer made by [optimizer_adadelta()], alone or inside
#'   the `LossScaleOptimizer` of Keras.
#' @param value A learning rate, as [optimizer_adadelta()] accepts it.
#' @return `learning_rate()` returns a number; `learning_rate<-` returns the
#'   changed optimizer.
#' @section Errors: It is an error of class `adadelta_error_argument` if
#'   `optimizer` is something else, or if [optimizer_adadelta()] does not accept
#'   the value. For an optimizer of an earlier session, the error has class
#'   `adadelta_error_state`. Nothing has changed then.
#' @seealso [assign_adadelta] for the other settings, and
#'   [update.adadelta.Adadelta()] for a new optimizer with another rate.
#' @export
#' @examplesIf keras_available()
#' optimizer <- optimizer_adadelta()
#' learning_rate(optimizer)
#'
#' learning_rate(optimizer) <- 0.5
#' learning_rate(optimizer)
#'
#' # The rate of the first step of a schedule
#' learning_rate(optimizer_adadelta(function(step) 1 / (1 + step / 100)))
#'
#' try(learning_rate(optimizer) <- -1)
learning_rate <- function(optimizer) {
  call <- named_call(sys.call(), "learning_rate")
  check_given(call)
  of_optimizer("learning_rate", optimizer, call)
}

#' @rdname learning_rate
#' @export
`learning_rate<-` <- function(optimizer, value) {
  # R has replaced the user's variable by `*tmp*`.
  shown <- if (is_plain_scalar(value)) value else quote(value)
  call <- call("<-", quote(learning_rate(optimizer)), shown)
  # Python is loaded before the value is converted, as in every function that accepts a rate.
  core(call)
  of_optimizer("set_learning_rate", optimizer, call, as_python_rate(value, call))
  invisible(optimizer)
}

of_optimizer <- function(name, optimizer, call, ...) {
  check_session(optimizer, call)
  if (!is_python(optimizer)) {
    refuse("optimizer", "one made by optimizer_adadelta()", optimizer, call)
  }
  value_of(core(call)$attempt(name, optimizer, ...), "argument", call)
}
