# Runs while the package is installed, when its files are in place.
if (identical(Sys.getenv("R_PACKAGE_NAME"), "adadelta")) {
  fail_on(missing_python_part(file.path(Sys.getenv("R_PACKAGE_DIR"), "python")), NULL)
}

.onLoad <- function(libname, pkgname) {
  require_packages()
  prefer_own_environment()
  when_python_runs(function(...) {
    try(prepare_python(get0("py_register_load_hook", asNamespace("reticulate"))), silent = TRUE)
  })
}

# Tells reticulate what to install if it makes a Python environment of its own.
require_packages <- function(backend = Sys.getenv("KERAS_BACKEND")) {
  if (!is.function(py_require()) || !is.null(missing_python_part())) return(invisible())
  if (!nzchar(backend)) backend <- stated("BACKENDS")[[1]]
  py_require()(
    needed_packages(backend),
    python_version = paste0(">=", stated("PYTHON_MINIMUM"))
  )
}

# Uses the environment that install_adadelta() made, unless the user has named another Python.
prefer_own_environment <- function() {
  if (!reticulate::py_available() && reticulate::virtualenv_exists(own_environment)) {
    reticulate::use_virtualenv(own_environment, required = FALSE)
  }
}

# In reticulate 1.28, setting a load hook starts Python, so this waits until Python runs anyway.
when_python_runs <- function(prepare) {
  if (reticulate::py_available()) prepare() else setHook("reticulate.onPyInit", prepare)
}

prepare_python <- function(on_load) {
  folder <- python_folder()
  # The backend has to be chosen before anybody imports Keras.
  choose_backend(reticulate::import_from_path("adadelta.installation", path = folder))
  # Our class must be registered as soon as Keras is loaded, or Keras can't load models saved with
  # it.
  if (is.function(on_load)) on_load("keras", core_beside_keras)
}
