#' Which kernels make the step fast
#'
#' A step of Adadelta is bound by memory. A kernel makes it in one pass over
#' memory, where Keras' own class makes many. Says which kernels can serve with
#' the Python that R uses, and why the others can't; [optimizer_adadelta()] uses
#' them by itself, and gives the same numbers without them, to rounding.
#'
#' @return A data frame with a row for each kernel: its name (`kernel`), whether
#'   it can serve (`serves`), why not (`reason`, or `NA`), and what it is and for
#'   whom (`description`). It needs Python, but no Keras, and is an error
#'   of class `adadelta_error_python` where there is none.
#' @seealso The argument `fused` of [optimizer_adadelta()].
#' @export
#' @examplesIf keras_available()
#' kernel_info()
kernel_info <- function() {
  module <- core_without_numpy(sys.call())
  rows <- module$kernels()
  data.frame(
    kernel = vapply(rows, `[[`, "", "kernel"),
    serves = vapply(rows, `[[`, NA, "serves"),
    reason = vapply(rows, function(row) if (is.null(row$reason)) NA_character_ else row$reason, ""),
    description = vapply(rows, `[[`, "", "description")
  )
}
