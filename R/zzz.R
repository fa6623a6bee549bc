.onLoad <- function(libname, pkgname) {
  # Functions of newer versions of reticulate are looked up, so that one source serves all.
  reticulate <- asNamespace("reticulate")
  require_packages(get0("py_require", reticulate)) # since 1.41
  when_python_runs(function(...) {
    try(prepare_python(get0("py_register_load_hook", reticulate)), silent = TRUE)
  })
}

# Tells reticulate what to install, should it make a Python of its own.
require_packages <- function(py_require) {
  if (!is.function(py_require) || !file.exists(file.path(python_folder(), "adadelta", "r.py"))) {
    return(invisible())
  }
  backend <- Sys.getenv("KERAS_BACKEND", "jax")
  py_require(
    c(
      paste0("keras>=", minimum("KERAS")), if (nzchar(backend)) backend else "jax",
      "numba", "safetensors"
    ),
    python_version = paste0(">=", minimum("PYTHON"))
  )
}

# A load hook starts Python in reticulate 1.28, so it has to wait until Python runs by itself.
when_python_runs <- function(prepare) {
  if (reticulate::py_available()) prepare() else setHook("reticulate.onPyInit", prepare)
}

prepare_python <- function(on_load) {
  folder <- python_folder()
  # The backend has to be chosen before anybody imports Keras.
  choose_backend(reticulate::import_from_path("adadelta.r", path = folder))
  # As soon as Keras is there, our class must be, or Keras can't load models saved with it.
  if (is.function(on_load)) on_load("keras", core_beside_keras)
}
