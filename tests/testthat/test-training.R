# A line with noise, which a single layer can learn.
line_data <- function() {
  withr::local_seed(1)
  x <- matrix(stats::rnorm(128), 64)
  list(x = x, y = x %*% c(2, -1) + 3 + stats::rnorm(64, sd = 0.1))
}

line_model <- function(optimizer, ...) {
  keras$utils$set_random_seed(1L)
  model <- keras$Sequential(list(
    keras$layers$Input(shape = reticulate::tuple(2L)),
    keras$layers$Dense(1L)
  ))
  model$compile(optimizer = optimizer, loss = "mse", ...)
  model
}

train <- function(model, epochs = 5L) {
  data <- line_data()
  model$fit(data$x, data$y, epochs = epochs, batch_size = 16L, shuffle = FALSE, verbose = 0L)
}

test_that("a model trains, and its loss falls", {
  skip_without_keras()
  losses <- train(line_model(optimizer_adadelta(1, epsilon = 1e-4)), 60L)$history$loss
  expect_true(all(is.finite(losses)))
  expect_lt(losses[[60]], losses[[1]] / 20)
})

test_that("a saved model goes on as if it had not been saved", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".keras")
  model <- line_model(optimizer_adadelta(1, rho = 0.9, weight_decay = 0.01))
  train(model)
  model$save(path)
  loaded <- keras$models$load_model(path)
  expect_s3_class(loaded$optimizer, "adadelta.Adadelta")
  expect_identical(loaded$optimizer$get_config(), model$optimizer$get_config())
  expect_identical(train(loaded)$history$loss, train(model)$history$loss)
})

test_that("a saved model loads in a new session that has only attached this package", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".keras")
  line_model(optimizer_adadelta(1))$save(path)
  lines <- run_in_child(c(
    "keras <- reticulate::import('keras')",
    sprintf("model <- keras$models$load_model('%s')", path),
    "cat(class(model$optimizer)[[1]], '\\n')"
  ))
  expect_identical(trimws(utils::tail(lines, 1)), "adadelta.Adadelta")
})

test_that("a function without arguments is asked for the rate at every step", {
  skip_without_keras()
  asked <- 0
  rate <- function() {
    asked <<- asked + 1
    0.5 / asked
  }
  weights_after <- function(rate) {
    model <- line_model(optimizer_adadelta(rate), run_eagerly = TRUE)
    train(model, 2L)
    model$get_weights()
  }
  weights <- weights_after(rate)
  expect_identical(asked, 8)
  expect_identical(weights_after(function(step) 0.5 / (step + 1)), weights)
  expect_false(identical(weights_after(0.5), weights))
})

test_that("a function of one argument is given the number of steps so far", {
  skip_without_keras()
  steps <- integer()
  rate <- function(step) {
    steps <<- c(steps, step)
    0.5
  }
  train(line_model(optimizer_adadelta(rate), run_eagerly = TRUE), 1L)
  expect_identical(unique(steps), 0:3)
})

step_with <- function(rate) {
  variable <- keras$Variable(c(1, 2))
  optimizer_adadelta(rate)$apply(list(keras$ops$ones(reticulate::tuple(2L))), list(variable))
  variable$numpy()
}

test_that("what a function returns is checked like the argument", {
  skip_without_keras()
  expect_identical(step_with(function() 0.5), step_with(0.5))
  expect_identical(step_with(function() 1L), step_with(1))
  expect_identical(step_with(function(step) 0.5), step_with(0.5))
  expect_error(step_with(function() NA), "learning_rate.* must be .*; received NA")
  expect_error(step_with(function() c(1, 2)), "learning_rate.* received c\\(1, 2\\)")
  expect_error(step_with(function() "a"), "learning_rate.* received \"a\"")
  expect_error(step_with(function() -1), "learning_rate.* received -1.0")
  # What a function returns can't be a function or a schedule.
  expect_error(step_with(function(step) -1), "must be a finite number of at least 0; received")
  expect_error(step_with(function() NULL), "learning_rate.* received None")
  expect_error(step_with(function(step) NA_integer_), "learning_rate.* received NA_integer_")
  expect_error(step_with(function() stop("mine")), "mine")
})

test_that("another session says of a model saved with a function how to load it", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".keras")
  model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
  model$compile(optimizer = optimizer_adadelta(function(step) 1), loss = "mse")
  save_model_atomically(model, path)
  lines <- run_in_child(c(
    "keras <- reticulate::import('keras')",
    sprintf("loaded <- keras$saving$load_model('%s', compile = FALSE)", path),
    "cat(class(loaded)[[1]], '\\n')",
    sprintf("try(keras$saving$load_model('%s'), outFile = stdout())", path)
  ))
  said <- paste(lines, collapse = " ")
  expect_match(said, "Sequential", fixed = TRUE)
  expect_match(said, "load the model with compile = FALSE", fixed = TRUE)
})

test_that("functions of one argument are told from the others", {
  count <- function(rate) length(formals(rate_function(rate, quote(f(x)))))
  expect_identical(count(function() 1), 0L)
  expect_identical(count(function(step) 1), 1L)
  expect_identical(count(function(step = 0) 1), 1L)
  expect_identical(count(function(step, scale = 2) 1), 1L)
  expect_identical(count(function(step, ...) 1), 1L)
  expect_identical(count(sqrt), 1L)
  expect_identical(count(Sys.time), 0L)
  for (other in list(function(a, b) 1, function(a = 1, b = 2) 1, function(...) 1)) {
    expect_error(count(other), "this one takes", class = "adadelta_error_argument")
  }
})

test_that("a model with an R function as rate says why it does not load in another session", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".keras")
  model <- line_model(optimizer_adadelta(function() 0.5))
  model$save(path)
  expect_s3_class(keras$models$load_model(path)$optimizer, "adadelta.Adadelta")
  lines <- run_in_child(c(
    "keras <- reticulate::import('keras')",
    "invisible(optimizer_adadelta(function() 1))",
    sprintf("path <- '%s'", path),
    "cat(conditionMessage(tryCatch(keras$models$load_model(path), error = identity)))",
    "invisible(keras$models$load_model(path, compile = FALSE))"
  ))
  text <- paste(lines, collapse = " ")
  expect_match(text, "compile = FALSE and compile it .* function \\(\\) 0.5")
})

test_that("an R function that can't be asked, or answers badly, costs no weights", {
  skip_without_keras()
  one_layer <- function(rate, ...) {
    keras$utils$set_random_seed(1L)
    model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
    model$compile(optimizer = optimizer_adadelta(rate), loss = "mse", ...)
    model
  }
  fails <- function(model, message) {
    before <- model$get_weights()
    expect_error(
      model$fit(matrix(1, 8, 2), matrix(1, 8, 1), epochs = 2L, batch_size = 4L, verbose = 0L),
      message
    )
    expect_identical(model$get_weights(), before)
  }
  if (keras$config$backend() == "jax") {
    fails(one_layer(function() 0.5), "run_eagerly = TRUE")
    fails(one_layer(function(step) 0.5), "run_eagerly = TRUE")
  }
  for (answer in list(NA, c(1, 2), "fast", -1, NULL)) {
    fails(one_layer(function() answer, run_eagerly = TRUE), "`learning_rate\\(\\)` must be")
    fails(one_layer(function(step) answer, run_eagerly = TRUE), "`learning_rate\\(step\\)` must be")
  }
})
