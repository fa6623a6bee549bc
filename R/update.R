#' Get the settings of an optimizer, or change some in a copy
#'
#' `as.list()` returns the settings of an optimizer, from which
#' `do.call(optimizer_adadelta, as.list(optimizer))` makes the same one again.
#' `update()` makes a new optimizer with some settings changed.
#'
#' The new optimizer starts without state, and the old one does not change. A
#' learning rate schedule or an R function is kept, and so are the variables
#' excluded from weight decay. A learning rate that was changed during training,
#' or that is a variable, becomes a number with its current value. To copy the
#' state too, see [save_optimizer_state()].
#'
#' @param x,object An optimizer made by [optimizer_adadelta()].
#' @param ... For `update()`, arguments of [optimizer_adadelta()], by their full
#'   names; for `as.list()` not used.
#' @return `as.list()` returns a list of all arguments of [optimizer_adadelta()],
#'   including those in its `...`. Schedules and R functions are described by
#'   lists. If variables are excluded from weight decay, the list also has
#'   `exclude_from_weight_decay`.
#'
#'   `update()` returns an optimizer of class `adadelta.Adadelta`.
#' @section Errors: Bad arguments are errors of class `adadelta_error_argument`,
#'   as in [optimizer_adadelta()]. An optimizer of an earlier session is an error
#'   of class `adadelta_error_state`, since its Python object is gone.
#' @seealso [all.equal.adadelta.Adadelta()] says what differs between two
#'   optimizers.
#' @importFrom stats update
#' @export
#' @examplesIf keras_available()
#' optimizer <- optimizer_adadelta(learning_rate = 1, weight_decay = 0.01)
#' update(optimizer, rho = 0.9)
#' update(optimizer, weight_decay = NULL)
#'
#' # One optimizer for each rate
#' lapply(c(1, 0.5, 0.25), function(rate) update(optimizer, learning_rate = rate))
#'
#' as.list(optimizer)[c("learning_rate", "weight_decay")]
#' try(update(optimizer, roh = 0.9))
update.adadelta.Adadelta <- function(object, ...) {
  call <- method_call(sys.call(), "update")
  check_session(object, call)
  updated(object, check_names(list(...), call), call)
}

# `changes` is a list of arguments by name.
updated <- function(optimizer, changes, call) {
  module <- core(call)
  changes <- reticulate::dict(Map(as_python_argument, changes, names(changes), list(call)))
  value_of(module$attempt("changed", optimizer, changes), "argument", call)
}

#' @rdname update.adadelta.Adadelta
#' @export
as.list.adadelta.Adadelta <- function(x, ...) {
  core_call("config", method_call(sys.call(), "as.list"), x)
}
