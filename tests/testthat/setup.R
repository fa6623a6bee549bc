# Python reads these when it starts. The vectors are compared in float64, which JAX has to be told
# to allow; Keras writes a settings file, which must not be written to the user's home.
withr::local_envvar(
  JAX_ENABLE_X64 = "1",
  TF_CPP_MIN_LOG_LEVEL = "3",
  # Some vectors have missing gradients, and Keras warns about these.
  PYTHONWARNINGS = "ignore:Gradients do not exist",
  KERAS_HOME = withr::local_tempdir(.local_envir = teardown_env()),
  .local_envir = teardown_env()
)

# Coverage saves its data when Python ends, which Python inside R is not told.
if (nzchar(Sys.getenv("COVERAGE_PROCESS_START"))) {
  withr::defer(
    if (reticulate::py_available()) reticulate::import("coverage")$Coverage$current()$save(),
    teardown_env()
  )
}
