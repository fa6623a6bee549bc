#' Arguments of Adadelta in other frameworks
#'
#' Frameworks use different names, defaults and meanings of weight decay for
#' Adadelta. `adadelta_conventions()` shows them side by side.
#' `adadelta_translate()` translates the arguments of one framework to those of
#' another that give the same steps, up to rounding. Both need Python, but
#' neither NumPy nor Keras.
#'
#' The result includes defaults that differ between the two frameworks. Arguments
#' without an effect on the result, such as torch's `foreach`, are left out.
#' Coupled weight decay becomes `decoupled_weight_decay = FALSE` in `"keras"`.
#' Weight decay that is not multiplied by the learning rate, as in BrainPy, is
#' converted with the learning rate that you give; if the learning rate changes
#' during training, the two frameworks differ.
#'
#' @param from,to A framework: one of those in `adadelta_conventions()`.
#' @param ... Arguments of `from`, by their names there: numbers, `TRUE`, `FALSE`,
#'   strings and `NULL`. Learning rates that are functions or schedules belong to
#'   their framework.
#'
#' @return `adadelta_conventions()` returns a data frame with a row for each
#'   `framework`: `"keras"` is [optimizer_adadelta()] (which has arguments that
#'   Keras' own lacks), `"tf1"` is `tf.keras` of TensorFlow 1.13, and `"paper"` is
#'   Zeiler (2012). `learning_rate`, `rho`, `epsilon` and `weight_decay` are the
#'   defaults; `NA` means, for `epsilon`, the value that Keras is set to, which is
#'   1e-7, and for `weight_decay` no decay. Columns that end in `_name` give the
#'   names of these arguments, or `NA` if there is none. `weight_decay_mode` is
#'   `"coupled"` where the decay is added to the gradient and so enters the
#'   averages, `"decoupled"` where it is subtracted from the weights, times the
#'   learning rate, `"unscaled"` where it is subtracted as it is, or `NA`.
#'
#'   `adadelta_translate()` returns a list of the arguments for `to`, by their
#'   names there.
#' @section Errors: Errors are of class `adadelta_error_argument`: a framework or
#'   an argument is unknown, an argument is out of range, or `to` has no
#'   equivalent. The message names it and says why.
#' @references
#' Zeiler, M. D. (2012). ADADELTA: An Adaptive Learning Rate Method.
#' \doi{10.48550/arXiv.1212.5701}
#' @export
#' @examplesIf keras_available()
#' adadelta_conventions()[, c("framework", "learning_rate", "rho", "epsilon")]
#'
#' # What made a network train in torch
#' arguments <- adadelta_translate("torch", "keras", lr = 0.5, weight_decay = 0.01)
#' do.call(optimizer_adadelta, arguments)
#'
#' # Keras' own kind of weight decay is unknown to torch
#' try(adadelta_translate("keras", "torch", weight_decay = 0.01))
adadelta_conventions <- function() {
  call <- named_call(sys.call(), "adadelta_conventions")
  columns <- value_of(core_without_numpy(call)$attempt("conventions"), "argument", call)
  as.data.frame(lapply(columns, without_null))
}

#' @rdname adadelta_conventions
#' @export
adadelta_translate <- function(from, to, ...) {
  call <- named_call(sys.call(), "adadelta_translate")
  check_given(call)
  arguments <- check_names(list(...), call)
  module <- core_without_numpy(call)
  arguments <- reticulate::dict(lapply(arguments, as_python))
  result <- module$attempt("translate", as_python(from), as_python(to), arguments)
  value_of(result, "argument", call)
}

# reticulate converts None to NULL, which a column can't hold.
without_null <- function(column) {
  unlist(lapply(column, function(value) if (is.null(value)) NA else value))
}
