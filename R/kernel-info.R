#' Which kernels make the step fast, and which variables they serve
#'
#' A step of Adadelta is bound by memory. A kernel makes it in one pass over
#' memory, where Keras' own class makes many. Says which kernels can serve with
#' the Python that R uses, and why the others can't; [optimizer_adadelta()] uses
#' them by itself, and gives the same numbers without them, to rounding.
#'
#' A kernel is compiled when it is first used, which takes seconds, and then kept
#' in a directory, from which later sessions load it. The directory must be safe:
#' if other users could write to it, or to one above it, nothing is read from it,
#' and each session compiles its own kernels. The environment variable
#' `ADADELTA_KERNEL_CACHE` can name another directory, by an absolute path. By
#' default it is `adadelta/kernels` in the user's cache directory: that of
#' `XDG_CACHE_HOME`, or `~/.cache`.
#'
#' @param optimizer `NULL`, or an optimizer: what [optimizer_adadelta()] returned,
#'   or `model$optimizer`.
#' @return Without an optimizer, a data frame with a row for each kernel:
#'   * `kernel`: its name.
#'   * `serves`: whether it can serve.
#'   * `reason`: why not, or `NA`.
#'   * `cache`: the directory in which the compiled kernel is kept, or `NA` if it
#'     is not kept.
#'   * `cache_reason`: why each session compiles the kernel again, or `NA`.
#'   * `description`: what it is, and for whom.
#'
#'   Keras is not needed. It is an error of class `adadelta_error_python` when
#'   there is no Python with NumPy.
#'
#'   With an optimizer, a data frame with a row for each variable, and none before
#'   the optimizer is built:
#'   * `variable`, `shape`, `dtype`, and `device`, where it lies.
#'   * `engine`: what makes its step: the name of a kernel, or the operators of the
#'     framework that Keras computes with.
#'   * `reason`: why no kernel makes it, or `NA`. What only shows in a step, such
#'     as a gradient that the kernel can't take, is known after that step.
#'
#'   An `optimizer` that is none is an error of class `adadelta_error_argument`.
#' @seealso The argument `fused` of [optimizer_adadelta()].
#' @export
#' @examplesIf keras_available()
#' kernel_info()
#'
#' keras <- reticulate::import("keras")
#' optimizer <- optimizer_adadelta()
#' optimizer$build(list(keras$Variable(matrix(0, 2, 2), name = "weights")))
#' kernel_info(optimizer)
kernel_info <- function(optimizer = NULL) {
  call <- sys.call()
  if (!is.null(optimizer)) {
    columns <- core_call("kernels_of", call, optimizer)
    columns$reason <- lapply(columns$reason, function(reason) if (is.null(reason)) NA else reason)
    return(as.data.frame(lapply(columns, function(column) as.character(unlist(column)))))
  }
  rows <- value_of(core_without_numpy(call)$attempt("kernel_info"), "argument", call)
  optional <- function(field) {
    vapply(rows, function(row) if (is.null(row[[field]])) NA_character_ else row[[field]], "")
  }
  data.frame(
    kernel = names(rows),
    serves = vapply(rows, `[[`, NA, "serves"),
    reason = optional("reason"),
    cache = optional("cache"),
    cache_reason = optional("cache_reason"),
    description = vapply(rows, `[[`, "", "for"),
    row.names = NULL
  )
}
