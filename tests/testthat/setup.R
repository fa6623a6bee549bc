# Python takes these over when it starts. The vectors are compared in float64, which JAX has to be
# allowed; Keras writes a settings file, which is not to land in the user's home.
withr::local_envvar(
  JAX_ENABLE_X64 = "1",
  TF_CPP_MIN_LOG_LEVEL = "3",
  # Some vectors have missing gradients, of which Keras warns.
  PYTHONWARNINGS = "ignore:Gradients do not exist",
  KERAS_HOME = withr::local_tempdir(.local_envir = teardown_env()),
  .local_envir = teardown_env()
)

# Python inside R is not told that it ends, when coverage would write what it has measured.
if (nzchar(Sys.getenv("COVERAGE_PROCESS_START"))) {
  withr::defer(
    if (reticulate::py_available()) reticulate::import("coverage")$Coverage$current()$save(),
    teardown_env()
  )
}
