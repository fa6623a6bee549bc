#' Choose the backend of Keras
#'
#' Sets the backend of Keras for this session: JAX, TensorFlow or torch. Call it
#' before anything uses Keras, because the backend can't be changed after Keras
#' is loaded. If you do not choose, the first of these that is installed is used.
#'
#' For every session, set the environment variable `KERAS_BACKEND` in the file
#' `.Renviron` instead. The R package keras3 has a function with the same name.
#' If keras3 is loaded, this function calls it, so you can use either. It does
#' not start Python.
#'
#' @param backend `"jax"`, `"tensorflow"` or `"torch"`.
#' @param gpu `FALSE` to hide all GPUs from the backend, by environment variables
#'   such as `CUDA_VISIBLE_DEVICES`, and `TRUE` to show them again. Default: `NA`,
#'   which leaves that to the backend, and to keras3 where it is loaded.
#' @return `backend`, invisibly.
#' @section Errors: An error of class `adadelta_error_argument` when `backend` or
#'   `gpu` is something else; of class `adadelta_error_python` when Keras is
#'   already loaded with another backend, or when the backend is not installed in
#'   the Python that R uses or would use. All are of class `adadelta_error`, and
#'   nothing has changed.
#' @seealso [install_adadelta()] installs a backend; [adadelta_sitrep()] shows
#'   which are there.
#' @export
#' @examples
#' # At the start of a session
#' if (FALSE) {
#'   library(adadelta)
#'   use_backend("jax")
#' }
#'
#' try(use_backend("theano"))
use_backend <- function(backend, gpu = NA) {
  call <- named_call(sys.call(), "use_backend")
  check_given(call)
  fail_on(missing_python_part(), call)
  check_backends(backend, call)
  if (length(backend) > 1) refuse_backend(backend, call)
  if (!is.logical(gpu) || length(gpu) != 1) refuse("gpu", "TRUE, FALSE or NA", gpu, call)
  installation <- running_installation()
  running <- if (!is.null(installation)) installation$running_backend()
  if (!is.null(running) && running != backend) {
    fail(sprintf(
      "Keras is already loaded with \"%s\".\nStart R again and call use_backend(\"%s\") first.",
      running, backend
    ), "python", call)
  }
  if (is.null(running)) {
    set_backend(backend, gpu, call)
  } else if (!is.na(gpu)) {
    fail(paste0(
      "Keras is already loaded, and has chosen its devices.\n",
      "Start R again and call use_backend(\"", backend, "\", gpu = ", gpu, ") first."
    ), "python", call)
  }
  invisible(backend)
}

set_backend <- function(backend, gpu, call) {
  fail_on(problem_of_backend(backend), call)
  keras3 <- if (isNamespaceLoaded("keras3")) get0("use_backend", asNamespace("keras3"))
  if (is.function(keras3)) {
    tryCatch(
      keras3(backend, gpu = gpu),
      error = function(error) fail(conditionMessage(error), "python", call)
    )
  } else if (!reticulate::py_available()) {
    forget_packages(setdiff(stated("BACKENDS"), backend))
    require_packages(backend)
  }
  set_variables(c(KERAS_BACKEND = backend))
  if (!is.na(gpu)) {
    hidden <- Sys.getenv(names(hides_gpus)) == hides_gpus
    set_variables(if (gpu) replace(hides_gpus[hidden], TRUE, NA) else hides_gpus)
  }
}

# The variables of CUDA, of AMD's ROCm, and of JAX, which warns about a GPU that it may not use.
hides_gpus <- c(CUDA_VISIBLE_DEVICES = "-1", HIP_VISIBLE_DEVICES = "-1", JAX_PLATFORMS = "cpu")

# Sets environment variables, or unsets them for NA. Once Python runs, it has its own.
set_variables <- function(values) {
  for (name in names(values)) {
    value <- values[[name]]
    if (is.na(value)) Sys.unsetenv(name) else do.call(Sys.setenv, as.list(values[name]))
    if (reticulate::py_available()) {
      environ <- reticulate::import("os")$environ
      if (is.na(value)) environ$pop(name, NULL) else environ$update(as.list(values[name]))
    }
  }
}

# Why Keras could not use a backend: the cause and the cure, or NULL.
problem_of_backend <- function(backend) {
  installation <- running_installation()
  if (!is.null(installation)) return(installation$missing_backend(backend))
  config <- discover_config()
  # reticulate will install it.
  if (makes_its_own_python(config)) return(NULL)
  if (is.null(config)) return(no_python())
  code <- "print(*(installation.missing_backend(sys.argv[2]) or []), sep='\\n')"
  asked <- ask_python(config$python, code, backend)
  if (asked$status != 0) return(paste0(config$python, " does not work, or is too old."))
  if (length(asked$lines) && any(nzchar(asked$lines))) asked$lines
}

check_backends <- function(backend, call) {
  known <- is.character(backend) && length(backend) > 0 && all(backend %in% stated("BACKENDS"))
  if (!known) refuse_backend(backend, call)
}

refuse_backend <- function(backend, call) {
  names <- paste0("\"", stated("BACKENDS"), "\"")
  refuse("backend", listed(names, "or"), backend, call)
}
