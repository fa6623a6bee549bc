skip_without_keras <- function() {
  testthat::skip_if_not(keras_available(), "Keras is not available")
}

# Imported on first use, so that loading the tests starts no Python.
delayedAssign("keras", reticulate::import("keras"))

read_vectors <- function(name) {
  testthat::skip_if_not_installed("jsonlite")
  path <- testthat::test_path("..", "vectors", paste0(name, ".json"))
  jsonlite::read_json(path, simplifyVector = FALSE)
}

# Runs R code in a separate process, after library(adadelta), and returns the lines it prints.
run_in_child <- function(code, ..., timeout = 600) {
  # Separate sessions take minutes together, and R CMD check should be short.
  testthat::skip_on_cran()
  is_installed <- dir.exists(file.path(getNamespaceInfo("adadelta", "path"), "Meta"))
  testthat::skip_if_not(is_installed, "the package is loaded from its sources, not installed")
  script <- withr::local_tempfile(fileext = ".R", lines = c("library(adadelta)", code))
  withr::local_envvar(R_LIBS = paste(.libPaths(), collapse = .Platform$path.sep), ...)
  rscript <- file.path(R.home("bin"), "Rscript")
  lines <- suppressWarnings(
    system2(rscript, c("--vanilla", script), stdout = TRUE, stderr = TRUE, timeout = timeout)
  )
  status <- attr(lines, "status")
  testthat::expect_true(is.null(status), info = paste(lines, collapse = "\n"))
  # TensorFlow logs something about the machine before logging can be turned off.
  grep("absl::InitializeLog|^[IWE][0-9]{4} ", lines, value = TRUE, invert = TRUE)
}

# A separate Python with none of the modules installed here. `modules` names made-up modules, with
# the version that each claims to have.
local_python <- function(modules = character(), frame = parent.frame()) {
  testthat::skip_on_os("windows")
  folder <- withr::local_tempdir(.local_envir = frame)
  base <- reticulate::py_config()$python
  code <- "import sys, venv; venv.create(sys.argv[1], symlinks=True, with_pip=False)"
  status <- system2(base, c("-c", shQuote(code), shQuote(folder)))
  testthat::skip_if_not(status == 0, "no virtual environment could be made")
  site <- Sys.glob(file.path(folder, "lib", "python*", "site-packages"))
  for (name in names(modules)) {
    info <- file.path(site, paste0(name, "-", modules[[name]], ".dist-info"))
    dir.create(info)
    dir.create(file.path(site, name))
    writeLines(
      c("Metadata-Version: 2.1", paste("Name:", name), paste("Version:", modules[[name]])),
      file.path(info, "METADATA")
    )
    code <- sprintf("__version__ = '%s'", modules[[name]])
    writeLines(code, file.path(site, name, "__init__.py"))
  }
  file.path(folder, "bin", "python")
}

# The error that code raises.
error_of <- function(code) {
  tryCatch({
    code
    testthat::fail("there was no error")
  }, error = identity)
}

# An optimizer after some steps on a matrix and a number.
stepped <- function(..., calls = 3) {
  variables <- list(
    keras$Variable(matrix(0, 2, 3), name = "kernel"), keras$Variable(0, name = "bias")
  )
  optimizer <- optimizer_adadelta(...)
  for (call in seq_len(calls)) {
    gradients <- list(matrix(call * c(1, -2, 3, -4, 5, 0), 2, 3), call)
    optimizer$apply(lapply(gradients, keras$ops$convert_to_tensor, dtype = "float32"), variables)
  }
  optimizer
}

# An optimizer as it is restored from a saved R session.
of_earlier_session <- function(optimizer) {
  path <- withr::local_tempfile()
  saveRDS(optimizer, path)
  readRDS(path)
}

expect_earlier_session <- function(code) {
  error <- testthat::expect_error(code, "earlier session", class = "adadelta_error_state")
  testthat::expect_s3_class(error, "adadelta_error")
}
