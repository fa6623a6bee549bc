#' Spread a Keras model over several devices
#'
#' Makes the distribution that Keras calls `ModelParallel`: batches are split over
#' one axis of a grid of devices, and the variables that you name over the others.
#' Keras supports this on the JAX backend. The averages of [optimizer_adadelta()]
#' are split in the same way as their variable.
#'
#' Call `keras$distribution$set_distribution()` with the result before you make the
#' model. To split batches only, `keras$distribution$DataParallel()` is enough.
#' `vignette("devices", "adadelta")` shows both, and training that runs on several
#' machines.
#'
#' To try it without several devices, let JAX divide the processor. JAX reads this
#' variable when it starts, so set it at the start of the session:
#' `Sys.setenv(XLA_FLAGS = "--xla_force_host_platform_device_count=8")`.
#'
#' @param shape The number of devices along each axis, with the names of the axes:
#'   `c(batch = 2, model = 4)` uses 8 devices. Batches are split over the first
#'   axis.
#' @param layouts A named list that says how variables are split. The names are regular
#'   expressions that match the whole path of a variable, such as `".*dense/kernel"`. A
#'   variable that none matches is kept whole on each device. The values are axes, one
#'   for each dimension of the variable, with `NA` where a dimension is not split:
#'   `c(NA, "model")` splits the columns of a matrix.
#' @param devices The names of the devices. Default: `NULL`, all that
#'   `keras$distribution$list_devices()` returns.
#' @return A `keras.distribution.ModelParallel`.
#' @section Errors: An error of class `adadelta_error_argument` when an argument
#'   is not valid; of class `adadelta_error_python` when Keras is missing, or its
#'   backend can't distribute. Both are of class `adadelta_error`.
#' @seealso [use_backend()] chooses the backend.
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' if (keras$config$backend() == "jax") {
#'   # One device is enough for a grid of one by one.
#'   device <- keras$distribution$list_devices()[[1]]
#'   model_parallel(c(batch = 1, model = 1), list(".*kernel" = c(NA, "model")), device)
#' }
#' try(model_parallel(c(batch = 1), list(".*kernel" = c(NA, "model"))))
model_parallel <- function(shape, layouts, devices = NULL) {
  call <- named_call(sys.call(), "model_parallel")
  check_given(call)
  check_shape(shape, call)
  check_layouts(layouts, names(shape), call)
  if (!is.null(devices) && !(is.character(devices) && !anyNA(devices))) {
    refuse("devices", "names of devices, or NULL", devices, call)
  }
  core(call)
  by_keras <- function(code) {
    tryCatch(code, error = function(error) {
      fail(paste0("Keras made no distribution: ", first_line(error), "."), "python", call)
    })
  }
  distribution <- reticulate::import("keras")$distribution
  if (is.null(devices)) devices <- as.character(unlist(by_keras(distribution$list_devices())))
  if (length(devices) != prod(shape)) {
    wanted <- sprintf("a grid of all devices, of which there are %d", length(devices))
    refuse("shape", wanted, shape, call)
  }
  by_keras(make_model_parallel(distribution, shape, layouts, devices))
}

make_model_parallel <- function(distribution, shape, layouts, devices) {
  axes <- names(shape)
  mesh <- distribution$DeviceMesh(
    do.call(reticulate::tuple, as.list(as.integer(shape))), as.list(axes), as.list(devices)
  )
  map <- distribution$LayoutMap(mesh)
  for (path in names(layouts)) {
    layout <- lapply(layouts[[path]], function(axis) if (!is.na(axis)) axis)
    # `[<-` does not change Python's mappings.
    reticulate::py_set_item(map, path, do.call(reticulate::tuple, layout))
  }
  distribution$ModelParallel(layout_map = map, batch_dim_name = axes[[1]])
}

check_shape <- function(shape, call) {
  fits <- is.numeric(shape) && length(shape) > 0 && all(is.finite(shape)) &&
    all(shape >= 1 & shape == round(shape)) && are_names(names(shape))
  if (!fits) {
    wanted <- "whole numbers of at least 1 with names, as c(batch = 2, model = 4)"
    refuse("shape", wanted, shape, call)
  }
}

check_layouts <- function(layouts, axes, call) {
  if (!is.list(layouts) || is.object(layouts) || !are_names(names(layouts))) {
    refuse("layouts", "a list with names, the paths of variables", layouts, call)
  }
  for (path in names(layouts)) {
    if (!is_layout(layouts[[path]], axes)) {
      wanted <- paste("axes of `shape` or NA for each dimension:", listed(axes, "or"))
      refuse(sprintf("layouts[[\"%s\"]]", path), wanted, layouts[[path]], call)
    }
  }
}

is_layout <- function(layout, axes) {
  is.atomic(layout) && length(layout) > 0 && all(layout %in% c(axes, NA))
}

are_names <- function(names) {
  !is.null(names) && !anyNA(names) && all(nzchar(names)) && !anyDuplicated(names)
}
