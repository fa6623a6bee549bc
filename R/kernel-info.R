#' Which compiled kernels are used
#'
#' A step of Adadelta takes as long as it takes to read and write its memory. A
#' compiled kernel computes the step in one pass over memory, where Keras' own
#' class needs many. [optimizer_adadelta()] uses the kernels that work with your
#' Python by itself; without them it gives the same results, up to rounding.
#' `kernel_info()` shows which kernels work, and why the others do not. With an
#' optimizer, it shows what computes the step of each variable.
#'
#' A kernel is compiled when it is first used, which takes some seconds, and kept
#' in a directory for later sessions. If other users can write to this directory,
#' or to one above it, the directory is not used and each session compiles its
#' own kernels. The environment variable `ADADELTA_KERNEL_CACHE` can name another
#' directory, by an absolute path. By default it is `adadelta/kernels` in the
#' user's cache directory: that of `XDG_CACHE_HOME`, or `~/.cache`.
#'
#' @param optimizer `NULL`, or an optimizer made by [optimizer_adadelta()], such
#'   as `model$optimizer`, alone or inside the `LossScaleOptimizer` of Keras.
#' @return Without an optimizer, a data frame with a row for each kernel:
#'   * `kernel`: its name.
#'   * `serves`: whether it works here.
#'   * `reason`: why not, or `NA`.
#'   * `cache`: the directory in which the compiled kernel is kept, or `NA` if it
#'     is not kept.
#'   * `cache_reason`: why each session compiles the kernel again, or `NA`.
#'   * `description`: what it is, and for whom.
#'
#'   This needs neither Keras nor NumPy. It is an error of class
#'   `adadelta_error_python` if there is no Python that is new enough.
#'
#'   With an optimizer, a data frame with a row for each variable, and none before
#'   the optimizer is built:
#'   * `variable`, `shape`, `dtype`, and the `device` on which it lies.
#'   * `engine`: what computes its step: the name of a kernel, or the operations
#'     of the backend of Keras.
#'   * `reason`: why no kernel computes it, or `NA`. Some reasons, such as a
#'     gradient that the kernel does not support, are known only after a step.
#'
#'   If `optimizer` is something else, this is an error of class
#'   `adadelta_error_state`.
#' @seealso The argument `fused` of [optimizer_adadelta()].
#' @export
#' @examplesIf keras_available()
#' kernel_info()[c("kernel", "serves", "reason")]
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
