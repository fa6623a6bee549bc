test_that("a bad shape, layout or device is an error that names the argument", {
  layouts <- list(".*kernel" = c(NA, "model"))
  for (shape in list(8, c(batch = 0), c(batch = 1.5), c(a = 2, a = 2), "8", NULL, c(batch = NA))) {
    error <- error_of(model_parallel(shape, layouts))
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    expect_match(conditionMessage(error), "`shape` must be whole numbers", fixed = TRUE)
    expect_identical(conditionCall(error), quote(model_parallel(shape, layouts)))
  }
  shape <- c(batch = 1, model = 1)
  for (bad in list(list("model"), c(kernel = "model"), NULL, list(a = "model", a = "batch"))) {
    error <- error_of(model_parallel(shape, bad))
    expect_s3_class(error, "adadelta_error_argument")
    expect_match(conditionMessage(error), "`layouts` must be a list with names", fixed = TRUE)
  }
  for (bad in list("columns", character(), NULL, 1, list("model"))) {
    error <- error_of(model_parallel(shape, stats::setNames(list(bad), "kernel")))
    expect_s3_class(error, "adadelta_error_argument")
    expect_match(conditionMessage(error), "`layouts[[\"kernel\"]]` must be axes", fixed = TRUE)
    expect_match(conditionMessage(error), "batch or model", fixed = TRUE)
  }
  expect_error(model_parallel(shape, layouts, 1), "`devices`", class = "adadelta_error_argument")
  expect_error(model_parallel(shape), "\"layouts\" is missing", class = "adadelta_error_argument")
})

# In a separate session: the number of devices is fixed when JAX starts, and a distribution applies
# to everything that follows.
on_eight_devices <- function(code) {
  run_in_child(code, XLA_FLAGS = "--xla_force_host_platform_device_count=8", KERAS_BACKEND = "jax")
}

train <- c(
  "keras <- reticulate::import('keras')",
  "train <- function(distribution) {",
  "  keras$distribution$set_distribution(distribution)",
  "  keras$utils$set_random_seed(1L)",
  "  model <- keras$Sequential(list(",
  "    keras$layers$Input(list(4L)),",
  "    keras$layers$Dense(8L, activation = 'tanh', name = 'first'),",
  "    keras$layers$Dense(4L, name = 'second')",
  "  ), name = 'model')",
  "  model$compile(",
  "    optimizer_adadelta(1, epsilon = 1e-4, global_clipnorm = 0.1, use_ema = TRUE), loss = 'mse'",
  "  )",
  "  x <- matrix(sin(1:960), 240, 4)",
  "  model$fit(x, x^2, batch_size = 8L, verbose = 0L, shuffle = FALSE)",
  "  model",
  "}",
  "numbers <- function(model) {",
  "  c(unlist(model$get_weights()), unlist(optimizer_state(model$optimizer)$parameters))",
  "}"
)

test_that("eight devices give what one device gives, and state lies beside its variable", {
  skip_without_keras()
  skip_if_not(keras$config$backend() == "jax", "keras.distribution is for JAX")
  lines <- on_eight_devices(c(
    train,
    "one <- numbers(train(NULL))",
    "layouts <- list('.*first/kernel' = c(NA, 'model'), '.*second/kernel' = c('model', NA),",
    "  '.*first/bias' = 'model', '.*second/bias' = NA)",
    "spread <- train(model_parallel(c(batch = 2, model = 4), layouts))",
    "cat(max(abs(numbers(spread) - one)) < 1e-5, '\\n')",
    "kernel <- function(variables) Find(",
    "  function(it) grepl('first_kernel_accum|first/kernel', it$path), variables",
    ")",
    "slot <- kernel(spread$optimizer$variables)",
    "variable <- kernel(spread$trainable_variables)",
    "shape <- function(it) unlist(it$value$addressable_shards[[1]]$data$shape)",
    "cat(shape(variable), shape(slot), '\\n')",
    "data <- train(keras$distribution$DataParallel(devices = keras$distribution$list_devices()))",
    "cat(max(abs(numbers(data) - one)) < 1e-5, '\\n')"
  ))
  expect_identical(trimws(lines), c("TRUE", "4 2 4 2", "TRUE"))
})

test_that("a grid must have as many places as there are devices", {
  skip_without_keras()
  skip_if_not(keras$config$backend() == "jax", "keras.distribution is for JAX")
  lines <- on_eight_devices(c(
    "try_it <- function(...) tryCatch(model_parallel(...), adadelta_error_argument = identity)",
    "cat(conditionMessage(try_it(c(batch = 3), list(kernel = NA))), '\\n')",
    "cat(class(try_it(c(batch = 4), list(kernel = NA), paste0('cpu:', 0:3)))[[1]], '\\n')"
  ))
  expect_identical(trimws(lines), c(
    "`shape` must be a grid of all devices, of which there are 8; received c(batch = 3)",
    "keras.src.distribution.distribution_lib.ModelParallel"
  ))
})
