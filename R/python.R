# Finding Python, Keras and our own Python code. Nothing here happens before it is needed:
# library(adadelta) starts no Python.

the <- new.env(parent = emptyenv())

python_folder <- function() system.file("python", package = "adadelta")

# The Python module `adadelta.r`, once Keras is there too.
core <- function(call = NULL) {
  if (is.null(the$core)) {
    the$is_loading <- TRUE
    on.exit(the$is_loading <- FALSE)
    the$core <- load_core(call)
  }
  the$core
}

# For Keras being imported: also by core() itself, whose work this must not start again from
# inside (with reticulate 1.41 that waits for ever when Keras then turns out to be broken).
core_beside_keras <- function() {
  if (!isTRUE(the$is_loading)) try(core(), silent = TRUE)
}

# The same module, for what needs no Keras.
core_without_keras <- function(call = NULL) {
  if (is.null(the$core)) {
    module <- load_module(call)
    fail_on(module$problem_without_keras(), call)
  }
  the$module
}

load_core <- function(call, folder = python_folder()) {
  module <- load_module(call, folder)
  choose_backend(module)
  fail_on(module$problem(), call)
  tryCatch(
    reticulate::import("adadelta.keras"),
    error = function(error) fail_to_load("Keras", error, call)
  )
  check_numpy(call)
  module
}

load_module <- function(call, folder = python_folder()) {
  if (!file.exists(file.path(folder, "adadelta", "__init__.py"))) {
    fail(paste(
      "The Python part of this package is missing, as when the package was installed from a copy",
      "of its repository that lost the link inst/python/adadelta.\nInstall the package again from",
      "a built package or from a complete checkout."
    ), "python", call)
  }
  start_python(call)
  the$module <- tryCatch(
    reticulate::import_from_path("adadelta.r", path = folder),
    error = function(error) fail_to_load("The Python part of this package", error, call)
  )
  the$module
}

fail_on <- function(problem, call) {
  if (!is.null(problem)) fail(paste(problem, collapse = "\n"), "python", call)
}

start_python <- function(call) {
  tryCatch(reticulate::py_config(), error = function(error) {
    fail(paste0(
      "R found no Python: ", first_line(error), ".\nInstall Python ", minimum("PYTHON"),
      " or newer with keras and jax, name it in the environment variable RETICULATE_PYTHON, and ",
      "start R again."
    ), "python", call)
  })
}

fail_to_load <- function(what, error, call) {
  python <- reticulate::py_config()$python
  fail(paste0(
    what, " could not be loaded in ", python, ": ", first_line(error), ".\n",
    "See the whole reason in a terminal with: ", python, " -c \"import keras\""
  ), "python", call)
}

first_line <- function(error) {
  lines <- strsplit(conditionMessage(error), "\n", fixed = TRUE)[[1]]
  sub("\\.$", "", trimws(c(lines[nzchar(trimws(lines))], "")[[1]]))
}

# Python's environment is its own once it runs: a variable set in R alone would not reach it.
choose_backend <- function(module) {
  # keras3 chooses by itself.
  if (isNamespaceLoaded("keras3")) return(invisible())
  chosen <- module$choose_backend()
  if (!is.null(chosen)) Sys.setenv(KERAS_BACKEND = chosen)
}

check_numpy <- function(call) {
  if (reticulate::py_numpy_available() || !reticulate::py_module_available("numpy")) {
    return(invisible())
  }
  numpy <- reticulate::import("numpy")$`__version__`
  warn(paste0(
    "reticulate ", utils::packageVersion("reticulate"), " can't exchange arrays with NumPy ", numpy,
    ": the optimizer works, but fit() fails on R data.\n",
    "Update reticulate to 1.38 or newer, or install an older NumPy in a terminal with: ",
    reticulate::py_config()$python, " -m pip install \"numpy<2\""
  ), call)
}

# The oldest version of "PYTHON" or "KERAS" that will do, which the Python code states.
minimum <- function(what) {
  lines <- readLines(file.path(python_folder(), "adadelta", "r.py"))
  line <- grep(paste0("^", what, "_MINIMUM = "), lines, value = TRUE)
  gsub("^[^\"]*\"|\".*$", "", line)
}

#' Is Keras available?
#'
#' Says whether [optimizer_adadelta()] can work with the Python that R uses or
#' would use: whether that Python is new enough and has a Keras that is new
#' enough, with a backend.
#'
#' It neither starts Python in this session nor downloads anything: while no
#' Python runs, it looks for one as reticulate would and asks it in a process of
#' its own. A newer reticulate (1.41 or later) that has been told nothing about
#' Python can still install Keras by itself when it is first used, even where
#' this says `FALSE`.
#'
#' @return `TRUE` or `FALSE`.
#' @export
#' @examples
#' keras_available()
keras_available <- function() {
  folder <- python_folder()
  if (!file.exists(file.path(folder, "adadelta", "__init__.py"))) return(FALSE)
  if (reticulate::py_available()) {
    module <- tryCatch(reticulate::import_from_path("adadelta.r", path = folder), error = identity)
    return(!inherits(module, "error") && is.null(module$problem()))
  }
  python <- discover_python()
  if (is.null(python)) return(FALSE)
  code <- paste(
    "import sys; sys.path.append(sys.argv[1]); from adadelta import r;",
    "sys.exit(r.problem() is not None)"
  )
  arguments <- c("-c", shQuote(code), shQuote(folder))
  status <- suppressWarnings(system2(python, arguments, stdout = FALSE, stderr = FALSE))
  identical(as.integer(status), 0L)
}

# Where reticulate would find Python, without its offer to install one.
discover_python <- function() {
  managed <- Sys.getenv("RETICULATE_USE_MANAGED_VENV", unset = NA)
  Sys.setenv(RETICULATE_USE_MANAGED_VENV = "no")
  # reticulate 1.41 prints an error for each Python that it can't look into.
  shown <- options(show.error.messages = FALSE)
  on.exit({
    options(shown)
    if (is.na(managed)) Sys.unsetenv("RETICULATE_USE_MANAGED_VENV")
    if (!is.na(managed)) Sys.setenv(RETICULATE_USE_MANAGED_VENV = managed)
  })
  config <- suppressWarnings(tryCatch(
    reticulate::py_discover_config("keras"),
    error = function(error) NULL
  ))
  if (is.list(config)) config$python
}
