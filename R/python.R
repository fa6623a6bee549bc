# Finds Python, Keras and our own Python code. Nothing here happens before it is needed:
# library(adadelta) does not start Python.

the <- new.env(parent = emptyenv())

python_folder <- function() system.file("python", package = "adadelta")

# Returns the Python module `adadelta.r`, with Keras loaded.
core <- function(call = NULL) {
  if (is.null(the$core)) {
    the$is_loading <- TRUE
    on.exit(the$is_loading <- FALSE)
    the$core <- load_core(call)
    the$process <- Sys.getpid()
  }
  warn_after_fork(call)
  the$core
}

# A forked process lacks the threads of JAX and TensorFlow and waits for them at the next array, so
# this warns before anything else is done in Python.
warn_after_fork <- function(call) {
  if (identical(the$process, Sys.getpid())) return(invisible())
  the$process <- Sys.getpid()
  # Show the warning at once: if the process hangs, R never shows a deferred one.
  if (getOption("warn") == 0) {
    before <- options(warn = 1)
    on.exit(options(before))
  }
  text <- paste(
    "this process was forked from one that had Keras loaded, as by mclapply(), and training in it",
    "can hang; use processes that begin anew, as of parallel::makeCluster(): see",
    "vignette(\"training\", \"adadelta\")"
  )
  warning(own_warning(text, call, "fork"))
}

# Runs when Keras is imported. If core() itself imports Keras, this must not call core() again from
# inside: with reticulate 1.41, that hangs if Keras then turns out to be broken.
core_beside_keras <- function() {
  if (!isTRUE(the$is_loading)) try(core(), silent = TRUE)
}

# The same module, for functions that do not need Keras.
core_without_keras <- function(call = NULL) {
  core_for("problem_without_keras", call)
}

# The same module, for functions that need only Python.
core_without_numpy <- function(call = NULL) core_for("problem_of_python", call)

core_for <- function(problem, call) {
  if (is.null(the$core)) {
    installation <- load_installation(call)
    fail_on(installation[[problem]](), call)
    load_module(call)
  }
  the$module
}

load_core <- function(call, folder = python_folder()) {
  installation <- load_installation(call, folder)
  choose_backend(installation)
  fail_on(installation$problem(), call)
  module <- load_module(call, folder)
  tryCatch(
    reticulate::import("adadelta.keras"),
    error = function(error) fail_to_load("Keras", error, call)
  )
  module$register(warn_of_state)
  check_numpy(call)
  module
}

# The Python module that says what is missing. Every Python can load it.
load_installation <- function(call, folder = python_folder()) {
  fail_on(missing_python_part(folder), call)
  start_python(call)
  load_part("adadelta.installation", call, folder)
}

load_module <- function(call, folder = python_folder()) {
  the$module <- load_part("adadelta.r", call, folder)
  the$module
}

load_part <- function(name, call, folder) {
  tryCatch(
    reticulate::import_from_path(name, path = folder),
    error = function(error) fail_to_load("The Python part of this package", error, call)
  )
}

missing_python_part <- function(folder = python_folder()) {
  if (file.exists(file.path(folder, "adadelta", "__init__.py"))) return(NULL)
  c(
    paste(
      "The Python part of this package is missing, as when the package was installed from a copy",
      "of its repository that lost the link inst/python/adadelta."
    ),
    "Install the package again from a built package or from a complete checkout."
  )
}

fail_on <- function(problem, call) {
  if (!is.null(problem)) fail(paste(problem, collapse = "\n"), "python", call)
}

start_python <- function(call) {
  tryCatch(reticulate::py_config(), error = function(error) {
    the$failure_of_python <- first_line(error)
    fail_on(no_python(the$failure_of_python), call)
  })
}

no_python <- function(reason = NULL) {
  c(
    paste0("R found no Python", if (length(reason)) ": ", reason, "."),
    paste0(
      "Install Python ", stated("PYTHON_MINIMUM"), " or newer and call install_adadelta(), or ",
      "name one that has keras and jax in the environment variable RETICULATE_PYTHON; then start ",
      "R again."
    )
  )
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

# Once Python runs, it has its own environment variables: one set in R alone would not reach it.
choose_backend <- function(installation) {
  # keras3 chooses the backend by itself.
  if (isNamespaceLoaded("keras3")) return(invisible())
  chosen <- installation$choose_backend()
  if (!is.null(chosen)) Sys.setenv(KERAS_BACKEND = chosen)
}

check_numpy <- function(call) {
  if (reticulate::py_numpy_available() || !reticulate::py_module_available("numpy")) {
    return(invisible())
  }
  numpy <- reticulate::import("numpy")$`__version__`
  warn(paste(numpy_too_new(numpy), collapse = "\n"), call)
}

# The first version that can exchange arrays with NumPy 2.
reticulate_for_numpy_2 <- "1.38"

knows_numpy_2 <- function() utils::packageVersion("reticulate") >= reticulate_for_numpy_2

numpy_too_new <- function(numpy) {
  c(
    paste0(
      "reticulate ", utils::packageVersion("reticulate"), " can't exchange arrays with NumPy ",
      numpy, ": the optimizer works, but fit() fails on R data."
    ),
    paste0(
      "Update reticulate to ", reticulate_for_numpy_2, " or newer, or call install_adadelta(), ",
      "which makes an environment with an older NumPy."
    )
  )
}

# A constant that the Python code defines in one line: "PYTHON_MINIMUM", "KERAS_MINIMUM", "BACKENDS"
# or "COMPANIONS". It is read as text, because Python may not run yet.
stated <- function(name) {
  files <- file.path(python_folder(), "adadelta", c("installation.py", "_core/backend.py"))
  lines <- unlist(lapply(files, readLines))
  line <- grep(paste0("^", name, " = "), lines, value = TRUE)
  gsub("\"", "", regmatches(line, gregexpr("\"[^\"]*\"", line))[[1]])
}

# The packages that pip or reticulate has to install for these backends.
needed_packages <- function(backends) {
  c(paste0("keras>=", stated("KERAS_MINIMUM")), backends, stated("COMPANIONS"))
}

#' Is Keras available?
#'
#' Says whether [optimizer_adadelta()] can work with the Python that R uses or
#' would use: whether that Python is new enough and has a Keras that is new
#' enough, with a backend.
#'
#' It neither starts Python in this session nor downloads anything: while Python
#' does not run, it looks for one as reticulate would and checks it in a separate
#' process. Unless you have chosen a Python, reticulate 1.41 or newer can still
#' install Keras by itself when it is first used, even if this returns `FALSE`.
#'
#' @return `TRUE` or `FALSE`.
#' @export
#' @examples
#' keras_available()
keras_available <- function() {
  if (!is.null(missing_python_part())) return(FALSE)
  if (reticulate::py_available()) {
    installation <- running_installation()
    return(!is.null(installation) && is.null(installation$problem()))
  }
  python <- discover_python()
  !is.null(python) && ask_python(python, "sys.exit(installation.problem() is not None)")$status == 0
}

# The module `adadelta.installation` of a Python that runs, whatever it lacks. Otherwise NULL.
running_installation <- function() {
  if (!reticulate::py_available() || !is.null(missing_python_part())) return(NULL)
  tryCatch(
    reticulate::import_from_path("adadelta.installation", path = python_folder()),
    error = function(error) NULL
  )
}

# Runs code in a separate Python process, with `installation` imported and further arguments in
# sys.argv[2:]. Returns the lines it printed and its exit status.
ask_python <- function(python, code, ...) {
  code <- paste0(
    "import sys; sys.path.append(sys.argv[1]); sys.stdout.reconfigure(encoding='utf-8');",
    "from adadelta import installation;", code
  )
  arguments <- c("-c", vapply(c(code, python_folder(), ...), shQuote, ""))
  # A cold start of JAX or TensorFlow and the first compilation of kernels can take minutes.
  lines <- suppressWarnings(tryCatch(
    with_own_libraries(
      python, system2(python, arguments, stdout = TRUE, stderr = FALSE, timeout = 300)
    ),
    error = function(error) structure(character(), status = 127L)
  ))
  status <- attr(lines, "status")
  lines <- as.character(lines)
  Encoding(lines) <- "UTF-8"
  list(lines = lines, status = if (is.null(status)) 0L else status)
}

# R puts the system's libraries first in the search path, and with them another build of the same
# Python, which may lack something (then pip has no ssl). For the processes that `code` starts, this
# puts the libraries of `python` first.
with_own_libraries <- function(python, code) {
  folder <- file.path(dirname(dirname(normalizePath(python, mustWork = FALSE))), "lib")
  if (.Platform$OS.type == "unix" && dir.exists(folder)) {
    before <- Sys.getenv("LD_LIBRARY_PATH", unset = NA)
    Sys.setenv(LD_LIBRARY_PATH = paste(c(folder, before[!is.na(before)]), collapse = ":"))
    on.exit({
      if (is.na(before)) Sys.unsetenv("LD_LIBRARY_PATH") else Sys.setenv(LD_LIBRARY_PATH = before)
    })
  }
  code
}

discover_python <- function() discover_config()$python

# Finds Python where reticulate would, without its offer to install one.
discover_config <- function() {
  # With this value, reticulate would install a Python at once.
  if (identical(Sys.getenv("RETICULATE_PYTHON"), "managed")) return(NULL)
  managed <- Sys.getenv("RETICULATE_USE_MANAGED_VENV", unset = NA)
  Sys.setenv(RETICULATE_USE_MANAGED_VENV = "no")
  # reticulate 1.41 prints an error for each Python that it can't inspect.
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
  if (is.list(config)) config
}

# Whether reticulate 1.41 or newer would make a Python environment of its own. It does if nobody has
# named a Python and it finds none but the one on the path.
makes_its_own_python <- function(config) {
  named <- Sys.getenv(c("RETICULATE_PYTHON", "RETICULATE_PYTHON_ENV"))
  opted_out <- tolower(Sys.getenv("RETICULATE_USE_MANAGED_VENV")) %in% c("false", "0", "no")
  if (!is.function(py_require())) return(FALSE)
  if (named[[1]] == "managed") return(TRUE)
  !any(nzchar(named)) && !opted_out && (is.null(config) || identical(config$forced, "PATH"))
}

# Functions of newer versions of reticulate are looked up, so that one source works with all.
py_require <- function() get0("py_require", asNamespace("reticulate")) # since 1.41
