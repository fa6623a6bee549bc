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

# Invalid learning rates, by how R prints them. A function must not return a function or a schedule.
bad_answers <- list(
  "NA" = NA, "c(1, 2)" = c(1, 2), "\"a\"" = "a", "-1" = -1, "-1" = -1L, "NULL" = NULL, "NaN" = NaN,
  "NA_integer_" = NA_integer_, ".Primitive(\"sum\")" = sum, "TRUE" = TRUE
)

expect_bad_answer <- function(code, name, shown) {
  error <- error_of(code)
  expect_s3_class(error, c("adadelta_error_argument", "adadelta_error", "error"))
  expect_identical(conditionMessage(error), paste0(
    "`", name, "` must be a finite number of at least 0; received ", shown
  ))
}

test_that("what a function returns is checked like the argument", {
  skip_without_keras()
  expect_identical(step_with(function() 0.5), step_with(0.5))
  expect_identical(step_with(function() 1L), step_with(1))
  expect_identical(step_with(function(step) 0.5), step_with(0.5))
  for (name in names(bad_answers)) {
    expect_bad_answer(step_with(function() bad_answers[[name]]), "learning_rate()", name)
    expect_bad_answer(step_with(function(step) bad_answers[[name]]), "learning_rate(step)", name)
  }
  expect_error(step_with(function() stop("mine")), "mine", class = "adadelta_error_function")
})

test_that("the error about an answer names the call that gave the function", {
  skip_without_keras()
  is_bad <- FALSE
  rate <- function(step) if (is_bad) NA else 0.5
  variable <- keras$Variable(1)
  step <- function(optimizer) {
    optimizer$apply(list(keras$ops$ones(reticulate::tuple())), list(variable))
  }
  call_of <- function(code) conditionCall(error_of(code))
  expect_identical(
    call_of(step(optimizer_adadelta(function() NA))), quote(optimizer_adadelta(function() NA))
  )
  expect_identical(
    call_of(step(do.call(optimizer_adadelta, list(quote(~ NA))))),
    quote(optimizer_adadelta(~ NA))
  )
  optimizer <- update(optimizer_adadelta(), learning_rate = rate)
  step(optimizer)
  is_bad <- TRUE
  expect_identical(
    call_of(step(optimizer)), quote(update(optimizer_adadelta(), learning_rate = rate))
  )
  # A refused step changes nothing, and the next step is made as if there had been none.
  expect_identical(optimizer_state(optimizer)$step, 1L)
  is_bad <- FALSE
  step(optimizer)
  expect_identical(optimizer_state(optimizer)$step, 2L)
  expect_identical(
    call_of(optimizer_adadelta(function() NA)$learning_rate),
    quote(optimizer_adadelta(function() NA))
  )
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
  fit <- function(model) {
    model$fit(matrix(1, 8, 2), matrix(1, 8, 1), epochs = 2L, batch_size = 4L, verbose = 0L)
  }
  fails <- function(model, message) {
    before <- model$get_weights()
    expect_error(fit(model), message)
    expect_identical(model$get_weights(), before)
  }
  if (keras$config$backend() == "jax") {
    fails(one_layer(function() 0.5), "run_eagerly = TRUE")
    fails(one_layer(function(step) 0.5), "run_eagerly = TRUE")
  }
  for (name in names(bad_answers)) {
    answer <- bad_answers[[name]]
    rates <- list(
      `learning_rate()` = function() answer, `learning_rate(step)` = function(step) answer
    )
    for (asked in names(rates)) {
      model <- one_layer(rates[[asked]], run_eagerly = TRUE)
      before <- model$get_weights()
      expect_bad_answer(fit(model), asked, name)
      expect_identical(model$get_weights(), before)
    }
  }
})
