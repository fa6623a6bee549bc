#' Install Python packages for Adadelta
#'
#' Makes a Python environment with everything that [optimizer_adadelta()] needs:
#' Keras, a backend, and the packages that make it fast and save its state. This
#' downloads some hundred megabytes. Later sessions find an environment with the
#' name `"r-adadelta"` by themselves, unless you choose another Python, for
#' example with the environment variable `RETICULATE_PYTHON`.
#'
#' If the environment already exists and has everything that is needed, it is
#' used as it is. If something is missing, this is an error unless `existing`
#' says what to do. An environment that could not be completed is removed.
#'
#' @param backend The backend of Keras: one or more of `"jax"`, `"tensorflow"`
#'   and `"torch"`. Default: `"jax"`, the smallest.
#' @param envname The name or the path of a virtual environment, as
#'   [reticulate::virtualenv_create()] takes it. Or `NULL`, with reticulate 1.41
#'   or newer, to have reticulate make one for this session only, by its
#'   `py_require()`. Default: `"r-adadelta"`.
#' @param ... Further arguments for [reticulate::virtualenv_install()], such as
#'   `pip_options`.
#' @param extra_packages Further Python packages, as pip takes them, such as
#'   `c("scipy", "jax[cuda12]")`. Default: `NULL`, for no further packages.
#' @param python The Python on which to base the environment. Default: `NULL`,
#'   which means that reticulate finds one that is new enough.
#' @param existing What to do if the environment exists and something is missing
#'   in it: `"refuse"` raises an error, `"update"` installs what is missing, and
#'   `"replace"` makes a new environment, even if nothing is missing. Default:
#'   `"refuse"`.
#'
#' @return The path of the Python in the environment, or `NULL` for `envname =
#'   NULL`, invisibly.
#' @section Errors: An error of class `adadelta_error_argument` if an argument is
#'   not valid; of class `adadelta_error_python` when the environment exists, when
#'   there is no Python that is new enough, when pip fails (its output is shown
#'   above the error), or when the finished environment does not work.
#' @seealso [adadelta_sitrep()] to see what is installed, [use_backend()].
#' @export
#' @examples
#' if (FALSE) {
#'   install_adadelta()
#'   install_adadelta(backend = "torch", envname = "with-torch")
#' }
install_adadelta <- function(backend = "jax",
                             envname = "r-adadelta",
                             ...,
                             extra_packages = NULL,
                             python = NULL,
                             existing = c("refuse", "update", "replace")) {
  call <- named_call(sys.call(), "install_adadelta")
  fail_on(missing_python_part(), call)
  check_backends(backend, call)
  check_strings("envname", envname, call)
  if (length(envname) > 1) refuse("envname", "one string, or NULL", envname, call)
  check_strings("extra_packages", extra_packages, call)
  check_strings("python", python, call)
  choices <- eval(formals(install_adadelta)$existing)
  if (!identical(existing, choices) && !(length(existing) == 1 && existing %in% choices)) {
    refuse("existing", "\"refuse\", \"update\" or \"replace\"", existing, call)
  }
  packages <- c(needed_packages(backend), if (!knows_numpy_2()) "numpy<2", extra_packages)
  if (is.null(envname)) return(install_for_session(packages, call))
  if (is_complete(envname, backend, extra_packages) && existing[[1]] != "replace") {
    message("The Python environment \"", envname, "\" has all that is needed.")
  } else {
    install_environment(envname, packages, python, existing[[1]], call, ...)
    fail_on(problem_with(reticulate::virtualenv_python(envname), backend), call)
    message("The Python environment \"", envname, "\" is ready.")
  }
  use_environment(envname)
}

own_environment <- "r-adadelta"

check_strings <- function(name, value, call) {
  if (is.null(value)) return(invisible())
  if (!is.character(value) || !length(value) || anyNA(value) || any(!nzchar(value))) {
    refuse(name, "a string that is not empty, or NULL", value, call)
  }
}

install_for_session <- function(packages, call) {
  if (!is.function(py_require())) {
    fail(paste(
      "`envname` must be the name of an environment with this reticulate,",
      utils::packageVersion("reticulate"), "; NULL needs 1.41 or newer"
    ), "argument", call)
  }
  if (reticulate::py_available()) fail(python_runs(), "python", call)
  forget_packages(stated("BACKENDS"))
  py_require()(packages, python_version = paste0(">=", stated("PYTHON_MINIMUM")))
  message("reticulate will install when Python is first used: ", paste(packages, collapse = ", "))
  invisible(NULL)
}

# Withdraws the requests of require_packages(), so that only one backend is installed.
forget_packages <- function(packages) {
  if (!is.function(py_require())) return(invisible())
  asked <- intersect(packages, py_require()()$packages)
  if (length(asked)) py_require()(asked, action = "remove")
}

python_runs <- function() {
  paste0(
    "Python already runs in this session, ", reticulate::py_config()$python, ".\n",
    "Start R again, and call this first."
  )
}

# Only pip can tell whether the extra packages are installed.
is_complete <- function(envname, backends, extra_packages) {
  is.null(extra_packages) && reticulate::virtualenv_exists(envname) &&
    is.null(problem_with(reticulate::virtualenv_python(envname), backends))
}

install_environment <- function(envname, packages, python, existing, call, ...) {
  found <- reticulate::virtualenv_exists(envname)
  if (found && existing == "refuse") refuse_existing(envname, call)
  check_no_other_folder(envname, call)
  is_new <- !found || existing == "replace"
  # Find a Python first, so that nothing is removed if there is none.
  starter <- if (is_new) find_starter(python, call)
  if (found && is_new) {
    check_not_running(envname, call)
    message("Removing the Python environment \"", envname, "\".")
    reticulate::virtualenv_remove(envname, confirm = FALSE)
  }
  add_packages(envname, packages, starter, call, ...)
}

add_packages <- function(envname, packages, starter, call, ...) {
  is_new <- !is.null(starter)
  tryCatch({
    if (is_new) {
      message("Making the Python environment \"", envname, "\" of ", starter, ".")
      with_own_libraries(
        starter, reticulate::virtualenv_create(envname, python = starter, packages = FALSE)
      )
    }
    message("Installing, which can take some minutes: ", paste(packages, collapse = ", "))
    with_own_libraries(
      reticulate::virtualenv_python(envname),
      reticulate::virtualenv_install(envname, packages, ...)
    )
  }, error = function(error) {
    if (is_new) unlink(python_home(envname), recursive = TRUE)
    fail(paste0(
      "The Python environment \"", envname, "\" could not be ",
      if (is_new) "made" else "updated", ": ", first_line(error), ".\n",
      "The reason is in the output above."
    ), "python", call)
  })
}

# The folder of an environment, which may be incomplete.
python_home <- function(envname) {
  if (grepl("[/\\\\]", envname)) envname else file.path(reticulate::virtualenv_root(), envname)
}

refuse_existing <- function(envname, call) {
  fail(paste0(
    "The Python environment \"", envname, "\" exists and does not have all that is asked for.\n",
    "`existing = \"update\"` adds it, `existing = \"replace\"` makes the environment anew."
  ), "python", call)
}

check_no_other_folder <- function(envname, call) {
  folder <- python_home(envname)
  if (!reticulate::virtualenv_exists(envname) && file.exists(folder)) {
    fail(paste0("\"", folder, "\" exists and is no Python environment."), "python", call)
  }
}

check_not_running <- function(envname, call) {
  if (!reticulate::py_available()) return(invisible())
  running <- normalizePath(dirname(reticulate::py_config()$python), mustWork = FALSE)
  own <- normalizePath(dirname(reticulate::virtualenv_python(envname)), mustWork = FALSE)
  if (running == own) fail(python_runs(), "python", call)
}

# The first problem of a Python with these backends: the cause and the cure, or NULL.
problem_with <- function(python, backends) {
  code <- paste(
    "problems = [installation.problem()];",
    "problems += map(installation.missing_backend, sys.argv[2:]);",
    "print(*(next(filter(None, problems), [])), sep='\\n')"
  )
  asked <- ask_python(python, code, backends)
  if (asked$status != 0) return(paste0(python, " does not work."))
  if (any(nzchar(asked$lines))) asked$lines
}

# This session uses it at once if Python does not run yet.
use_environment <- function(envname) {
  python <- reticulate::virtualenv_python(envname)
  named <- Sys.getenv("RETICULATE_PYTHON")
  if (nzchar(named)) {
    message(
      "R uses another Python, because the environment variable RETICULATE_PYTHON is \"", named,
      "\". Unset it and start R again."
    )
  } else if (reticulate::py_available()) {
    message("Start R again to use it.")
  } else {
    reticulate::use_virtualenv(envname, required = TRUE)
    message("This session uses it.")
  }
  if (envname != own_environment) {
    message("In later sessions, call reticulate::use_virtualenv(\"", envname, "\") first.")
  }
  invisible(python)
}

# A Python to base an environment on. It must be new enough and, with an old reticulate, one that
# NumPy 1 was built for.
find_starter <- function(python, call) {
  least <- stated("PYTHON_MINIMUM")
  below <- if (!knows_numpy_2()) "3.13"
  candidates <- if (is.null(python)) starters(least, below) else python
  found <- Find(function(candidate) serves(version_of_python(candidate), least, below), candidates)
  if (!is.null(found)) return(found)
  range <- paste0(least, " or newer", if (length(below)) paste0(", but older than ", below))
  problem <- if (is.null(python)) {
    paste0("R found no Python ", range)
  } else {
    paste0("`python` must be Python ", range, "; received ", r_code(python))
  }
  fail(paste0(
    problem, ".\nInstall one, or have reticulate do it: ",
    "reticulate::install_python(\"3.12:latest\")"
  ), "python", call)
}

serves <- function(version, least, below) {
  !is.na(version) && version >= least && (is.null(below) || version < below)
}

starters <- function(least, below) {
  find <- get0("virtualenv_starter", asNamespace("reticulate")) # since 1.29
  found <- if (is.function(find)) {
    range <- paste(c(paste0(">=", least), if (length(below)) paste0("<", below)), collapse = ",")
    suppressWarnings(tryCatch(find(range), error = function(error) NULL))
  }
  names <- c("python3", "python", paste0("python3.", 13:11))
  unique(Filter(nzchar, c(found, Sys.getenv("RETICULATE_PYTHON"), Sys.which(names))))
}

# The version of a Python, such as "3.11", or NA if the file is not a Python.
version_of_python <- function(python) {
  code <- "import sys; print('%d.%d' % sys.version_info[:2])"
  lines <- suppressWarnings(tryCatch(
    system2(python, c("-c", shQuote(code)), stdout = TRUE, stderr = FALSE),
    error = function(error) ""
  ))
  numeric_version(c(lines, "")[[1]], strict = FALSE)
}
