#' Save and restore the state of an optimizer
#'
#' A run that is resumed from saved weights and a saved optimizer state gives bit
#' for bit the same result as a run that was not interrupted. `optimizer_state()`
#' returns the state as R arrays, `save_optimizer_state()` writes it to a file,
#' and `load_optimizer_state()` loads it into an optimizer.
#' `read_optimizer_state()` returns the contents of a file and does not need
#' Keras.
#'
#' Parameters are matched by name. Everything is checked before anything changes:
#' a state is loaded completely, or an error lists what does not fit. The
#' optimizer keeps its own arguments; only a learning rate that is a number is
#' loaded. A new file replaces the old one only when it is completely on the
#' disk. Python reads the same files with `adadelta.load_state()`.
#'
#' `saveRDS()` and `save()` keep nothing of an optimizer or a model, which are Python
#' objects, but they do keep what `optimizer_state()` returns.
#'
#' @param optimizer An optimizer made by [optimizer_adadelta()] that has been
#'   built, by `fit()` or by `optimizer$build(model$trainable_variables)`.
#' @param path The name of the file, usually ending in `".safetensors"`.
#' @return `optimizer_state()` returns a list: the counts `step` (calls), `update`
#'   (calls that updated the parameters) and `skipped`; where they are used,
#'   `window`, the number of calls whose gradients are accumulated, and
#'   `loss_scale`, the dynamic loss scale; the `hyperparameters`; and
#'   `parameters`, which has for each parameter's name a list of arrays:
#'   `square_avg` and `acc_delta`, the running averages of squared gradients and
#'   squared updates, and where they are used `average`, the moving average of the
#'   parameter, and `window_sum`, the sum of the accumulated gradients.
#'   `read_optimizer_state()` returns the same list for a file. The other two
#'   return `optimizer`, invisibly.
#' @section Errors:
#' Errors are of class `adadelta_error_state`: the optimizer is not built, the
#' state does not fit it, or the file is missing, damaged, cut off, of another
#' kind or from a newer version. The message says which, and nothing has
#' changed.
#' @seealso [save_model_atomically()] for a model with its optimizer,
#'   [convert_optimizer_state()] for another framework,
#'   [summary.adadelta.Adadelta()], [all.equal.adadelta.Adadelta()].
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#' history <- model$fit(cars[, 2:3], cars[, 1, drop = FALSE], epochs = 2L, verbose = 0L)
#' str(optimizer_state(model$optimizer)$parameters)
#'
#' path <- tempfile(fileext = ".safetensors")
#' save_optimizer_state(model$optimizer, path)
#' load_optimizer_state(model$optimizer, path)
#' names(read_optimizer_state(path)$parameters)
optimizer_state <- function(optimizer) {
  call <- named_call(sys.call(), "optimizer_state")
  check_given(call, "state")
  core_call("state", call, optimizer)
}

#' @rdname optimizer_state
#' @export
save_optimizer_state <- function(optimizer, path) {
  call <- named_call(sys.call(), "save_optimizer_state")
  check_given(call, "state")
  core_call("save_state", call, optimizer, check_path(path, call))
  invisible(optimizer)
}

#' @rdname optimizer_state
#' @export
load_optimizer_state <- function(optimizer, path) {
  call <- named_call(sys.call(), "load_optimizer_state")
  check_given(call, "state")
  core_call("load_state", call, optimizer, check_path(path, call))
  invisible(optimizer)
}

#' @rdname optimizer_state
#' @export
read_optimizer_state <- function(path) {
  call <- named_call(sys.call(), "read_optimizer_state")
  check_given(call, "state")
  path <- check_path(path, call)
  value_of(core_without_keras(call)$attempt("read_state", path), "state", call)
}

#' Load the optimizer state from a file of Keras
#'
#' Loads the state of an optimizer from a file that Keras saved, `".keras"` or
#' `".weights.h5"`. If the state does not fit, this is an error; Keras'
#' `load_model()` and `load_weights()` load the weights, leave out the state and
#' warn.
#'
#' Either file may come from [optimizer_adadelta()] or from Keras' own Adadelta,
#' `keras$optimizers$Adadelta`, with the same arguments. A `".keras"` file names
#' the optimizer that wrote it, so `load_weights()` loads the state by itself. A
#' `".weights.h5"` file does not: use this function if you know that Keras'
#' Adadelta wrote it. It does not load the weights of the model.
#'
#' @param optimizer A compiled Keras model, or an optimizer made by
#'   [optimizer_adadelta()] that is built.
#' @param path The name of the file.
#' @return `optimizer`, invisibly.
#' @section Errors:
#' Errors are of class `adadelta_error_state`: the state does not fit the
#' optimizer or is that of another one, or the file is missing, damaged, of
#' another kind or without an optimizer. Nothing has changed then.
#' @seealso [load_optimizer_state()] for files of [save_optimizer_state()].
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#' model$compile(optimizer = keras$optimizers$Adadelta(1), loss = "mse")
#' history <- model$fit(cars[, 2:3], cars[, 1, drop = FALSE], epochs = 2L, verbose = 0L)
#' path <- tempfile(fileext = ".weights.h5")
#' model$save_weights(path)
#'
#' # The same model goes on with the optimizer of this package
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' load_keras_adadelta(model, path)
#' model$optimizer
load_keras_adadelta <- function(optimizer, path) {
  call <- named_call(sys.call(), "load_keras_adadelta")
  check_given(call, "state")
  core_call("load_keras_adadelta", call, optimizer, check_path(path, call))
  invisible(optimizer)
}

#' Convert a saved state for another framework
#'
#' Renames and transposes the parameters in a saved state, for the same model in
#' another framework. There, Python's `adadelta.load_state()` loads the file into
#' the optimizer of this package for Keras, torch, tf_keras, TensorFlow, optax or
#' BrainPy. It needs Python with NumPy and safetensors, but not Keras.
#'
#' Frameworks use different names and layouts for parameters: the kernel of a
#' dense layer in Keras is the transpose of the weight of a linear layer in
#' torch. A square kernel would fit without being transposed too, so you must
#' name every parameter, unless `keep_others` is `TRUE`. Numbers are moved, never
#' changed.
#'
#' @param from The file of the state, written by [save_optimizer_state()] or in
#'   Python.
#' @param to The file to write. An existing file is replaced only when the new
#'   one is complete.
#' @param rename New names: a character vector whose names are the old ones, which
#'   [read_optimizer_state()] shows.
#' @param perm Orders of axes: a list whose names are old names, with the orders
#'   that [base::aperm()] takes: `2:1` from the kernel of a dense layer of Keras
#'   to the weight of a linear layer of torch, `c(4, 3, 1, 2)` from that of a
#'   two-dimensional convolution.
#' @param keep_others `TRUE` to keep parameters that are neither in `rename` nor in
#'   `perm` as they are. `FALSE`, the default, makes them errors.
#' @return `to`, invisibly.
#' @section Errors: Errors are of class `adadelta_error_state`: an argument is not
#'   valid, a file is missing, damaged or can't be written, a name is unknown or
#'   missing, two parameters would get the same name, or an order of axes does not
#'   fit. The error's `problems` lists all names that are wrong, and nothing is
#'   written.
#' @seealso [adadelta_translate()] for the arguments,
#'   `vignette("migrating", "adadelta")`.
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(3L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' model$optimizer$build(model$trainable_variables)
#' path <- tempfile(fileext = ".safetensors")
#' save_optimizer_state(model$optimizer, path)
#'
#' # As torch.nn.Sequential(torch.nn.Linear(2, 3)) calls them and lays them out
#' names <- names(read_optimizer_state(path)$parameters)
#' for_torch <- tempfile(fileext = ".safetensors")
#' convert_optimizer_state(
#'   path, for_torch,
#'   rename = setNames(c("0.weight", "0.bias"), names),
#'   perm = setNames(list(2:1), names[1])
#' )
#' str(read_optimizer_state(for_torch)$parameters)
convert_optimizer_state <- function(from, to, rename = character(), perm = list(),
                                    keep_others = FALSE) {
  call <- named_call(sys.call(), "convert_optimizer_state")
  check_given(call, "state")
  from <- check_path(from, call, "from")
  target <- check_path(to, call, "to")
  rename <- check_by_name(rename, "rename", is.character, "a character vector", call)
  are_axes <- function(value) is.list(value) && all(vapply(value, is_permutation, NA))
  perm <- check_by_name(perm, "perm", are_axes, "a list of orders of axes, such as 2:1,", call)
  axes <- lapply(perm, function(order) as.list(as.integer(order) - 1L))
  result <- core_without_keras(call)$attempt(
    "convert_file", from, target, reticulate::dict(lapply(as.list(rename), enc2utf8)),
    reticulate::dict(axes), as_python(keep_others)
  )
  value_of(result, "state", call)
  invisible(to)
}

check_by_name <- function(value, name, accepts, requirement, call) {
  are_named <- length(value) == 0 ||
    (!is.null(names(value)) && all(nzchar(names(value))) && !anyDuplicated(names(value)))
  if (!accepts(value) || anyNA(value) || !are_named) {
    requirement <- paste(requirement, "whose names are those of parameters, each once")
    fail(refusal(name, requirement, value), "state", call)
  }
  value
}

is_permutation <- function(value) {
  is.numeric(value) && length(value) > 0 && identical(sort(as.numeric(value)), seq_along(value) + 0)
}

#' Save a model so that nothing is lost
#'
#' Does the same as Keras' `model$save(path)`, which destroys the old file if it
#' is interrupted or the disk is full. This function replaces the old file only
#' when the new one is completely on the disk.
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
  call <- named_call(sys.call(), "save_model_atomically")
  check_given(call, "state")
  core_call("save_model", call, model, check_path(path, call))
  invisible(model)
}

check_path <- function(path, call, name = "path") {
  if (!is.character(path) || length(path) != 1 || is.na(path) || path == "") {
    fail(refusal(name, "the name of a file", path), "state", call)
  }
  enc2utf8(path.expand(path))
}

# Calls a function of the Python part whose first argument is an optimizer or a model.
core_call <- function(name, call, object, ...) {
  check_session(object, call)
  if (!is_python(object)) refuse_object(name, object, call)
  value_of(core(call)$attempt(name, object, ...), "state", call)
}

refuse_object <- function(name, object, call) {
  text <- if (name == "save_model") {
    refusal("model", "a Keras model", object)
  } else {
    refusal("optimizer", "one made by optimizer_adadelta()", object)
  }
  fail(text, "state", call)
}

# Returns the value that Python returned, or signals Python's error as an R error.
value_of <- function(result, kind, call) {
  error <- result$error
  if (!is.null(error)) fail(sentence(error), kind, call, problems = problems_of(error))
  result$value
}
