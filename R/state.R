#' What an optimizer knows, and keeping it
#'
#' A run that is stopped and resumed from its weights and its optimizer's state
#' goes on bit for bit as if it had not been stopped. `optimizer_state()` shows
#' that state as R arrays, `save_optimizer_state()` writes it to a file, and
#' `load_optimizer_state()` puts it into an optimizer again.
#'
#' Parameters are matched by name. Everything is checked first: either all of a
#' state is taken, or nothing and the error lists what does not fit. The
#' optimizer keeps its own arguments; only a learning rate that is a number
#' comes from the state. A file is written beside the old one, brought to the
#' disk and renamed, so that there is the old file or the new one at every
#' moment. Python reads the same files with `adadelta.load_state()`.
#'
#' @param optimizer An optimizer made by [optimizer_adadelta()] that is built,
#'   which `fit()` does, or `optimizer$build(model$trainable_variables)`.
#' @param path The name of the file, usually ending in `".safetensors"`.
#' @return `optimizer_state()` returns a list: the counts `step` (calls),
#'   `update` (calls that updated the parameters) and `skipped`, the
#'   `hyperparameters`, and `parameters`, which holds for each parameter's name
#'   a list of arrays: `square_avg` and `acc_delta`, the running averages of
#'   squared gradients and squared updates, and where they are used `average`,
#'   the moving average of the parameter, and `window_sum`, the gradients that
#'   wait for the next update. The other two return `optimizer`, invisibly.
#' @section Errors:
#' Errors are of class `adadelta_error_state`: the optimizer is not built, the
#' state does not fit it, or the file is missing, damaged, cut off, of another
#' kind or from a newer version. The message says which, and nothing has
#' changed.
#' @seealso [save_model_atomically()] for a model with its optimizer.
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#' model$fit(cars[, 2:3], cars[, 1, drop = FALSE], epochs = 2L, verbose = 0L)
#' str(optimizer_state(model$optimizer)$parameters)
#'
#' path <- tempfile(fileext = ".safetensors")
#' save_optimizer_state(model$optimizer, path)
#' load_optimizer_state(model$optimizer, path)
optimizer_state <- function(optimizer) {
  core_call("state", sys.call(), optimizer)
}

#' @rdname optimizer_state
#' @export
save_optimizer_state <- function(optimizer, path) {
  call <- sys.call()
  core_call("save_state", call, optimizer, check_path(path, call))
  invisible(optimizer)
}

#' @rdname optimizer_state
#' @export
load_optimizer_state <- function(optimizer, path) {
  call <- sys.call()
  core_call("load_state", call, optimizer, check_path(path, call))
  invisible(optimizer)
}

#' Save a model so that nothing is lost
#'
#' As Keras' `model$save(path)`, which destroys the old file when it is
#' interrupted or the disk is full. This writes beside the old file, brings the
#' new one to the disk and renames it: there is the old file or the new one at
#' every moment.
#'
#' @param model A Keras model.
#' @param path The name of the file, ending in `".keras"`.
#' @return `model`, invisibly. Keras' `load_model()` reads the file.
#' @section Errors:
#' An error of class `adadelta_error_state` when `path` ends in something else,
#' when `model` can't be saved, or when the file can't be written. The old file is unharmed.
#' @seealso [save_optimizer_state()] for the optimizer alone.
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' path <- tempfile(fileext = ".keras")
#' save_model_atomically(model, path)
#' keras$saving$load_model(path)$optimizer
save_model_atomically <- function(model, path) {
  call <- sys.call()
  core_call("save_model", call, model, check_path(path, call))
  invisible(model)
}

check_path <- function(path, call) {
  if (!is.character(path) || length(path) != 1 || is.na(path) || path == "") {
    fail(paste("`path` must be the name of a file; received", r_code(path)), "state", call)
  }
  enc2utf8(path.expand(path))
}

# Calls a function of the Python part that takes an optimizer or a model first.
core_call <- function(name, call, object, ...) {
  module <- core(call)
  value_of(module$attempt(name, as_python(object), ...), "state", call)
}

# What Python returned, or its error as ours.
value_of <- function(result, kind, call) {
  if (!is.null(result$error)) fail(in_r_words(result$error), kind, call)
  result$value
}
