# Reading from a Python object of an earlier session is an error. reticulate alone returns NULL, and
# a call of a method fails with "attempt to apply non-function".

# nolint start: object_name_linter, object_length_linter.
#' @export
`$.adadelta.Adadelta` <- function(x, name) {
  check_session(x, method_call(sys.call(), "$"))
  NextMethod()
}

#' @export
`[[.adadelta.Adadelta` <- function(x, name) {
  check_session(x, method_call(sys.call(), "[["))
  NextMethod()
}

#' @export
`$.adadelta.Monitor` <- `$.adadelta.Adadelta`

#' @export
`$.keras.src.callbacks.history.History` <- `$.adadelta.Adadelta`
# nolint end
