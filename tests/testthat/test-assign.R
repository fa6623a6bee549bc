test_that("settings can be set where optimizer_adadelta() takes them", {
  skip_without_keras()
  optimizer <- optimizer_adadelta()
  optimizer$learning_rate <- 0.1
  optimizer$rho <- 0.9
  optimizer$weight_decay <- 0.01
  optimizer[["clipnorm"]] <- 2L
  optimizer$weight_decay <- NULL
  settings <- as.list(optimizer)[c("learning_rate", "rho", "weight_decay", "clipnorm")]
  expect_identical(
    settings, list(learning_rate = 0.1, rho = 0.9, weight_decay = NULL, clipnorm = 2)
  )
  optimizer$lr <- function(step) 1 / (step + 2)
  expect_identical(optimizer$learning_rate, 0.5)
})

test_that("what it does not take is an error of ours, and changes nothing", {
  skip_without_keras()
  optimizer <- optimizer_adadelta()
  before <- as.list(optimizer)
  for (bad in list(5, NA, "a", c(0.1, 0.2))) {
    error <- error_of(optimizer$rho <- bad)
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    expect_match(conditionMessage(error), "^`rho` must be a number of at least 0 and less than 1")
  }
  expect_identical(conditionCall(error_of(optimizer$rho <- 5)), quote(optimizer$rho <- 5))
  expect_error(optimizer$learning_rte <- 5, "did you mean `learning_rate`?", fixed = TRUE,
               class = "adadelta_error_argument")
  expect_error(optimizer[["nothing"]] <- 5, "`nothing`", class = "adadelta_error_argument")
  expect_identical(as.list(optimizer), before)
  built <- stepped()
  expect_error(built$rho <- 0.5, "make a new one, for example with update(optimizer)",
               fixed = TRUE, class = "adadelta_error_argument")
  gone <- of_earlier_session(optimizer)
  expect_earlier_session(gone$rho <- 0.5)
})

test_that("a function as rate that takes something else is refused for that reason", {
  skip_without_keras()
  cases <- list(
    list(function(a, b) 1, "this one takes 2 arguments: received function (a, b)"),
    list(function(a = 1, b = 2) 1, "this one takes 2 arguments"),
    list(function(...) 1, "this one takes `...`: received function (...)")
  )
  optimizer <- optimizer_adadelta()
  for (case in cases) {
    rate <- case[[1]]
    calls <- list(
      quote(optimizer_adadelta(rate)), quote(update(optimizer, learning_rate = rate)),
      quote(optimizer$learning_rate <- rate)
    )
    if (!identical(names(formals(rate)), "...")) {
      minimizes <- quote(adadelta_optim(1, function(x) x^2, control = list(learning_rate = rate)))
      calls <- c(calls, minimizes)
    }
    for (call in calls) {
      error <- error_of(eval(call))
      expect_s3_class(error, "adadelta_error_argument")
      expect_match(conditionMessage(error), case[[2]], fixed = TRUE)
      expect_match(conditionMessage(error), "^`learning_rate` must be a function without arguments")
    }
  }
})

test_that("a formula is a function of the step, as for purrr", {
  skip_without_keras()
  start <- 2
  expect_identical(optimizer_adadelta(~ start / (1 + .x))$learning_rate, 2)
  expect_identical(optimizer_adadelta(~ start / (4 + . + ..1))$learning_rate, 0.5)
  expect_output(print(optimizer_adadelta(~ start / (1 + .x))), "~start/(1 + .x)", fixed = TRUE)
  # rlang converts a formula to such a function.
  lambda <- function(..., .x = ..1, .y = ..2, . = ..1) 1 / (4 + .x)
  class(lambda) <- c("rlang_lambda_function", "function")
  expect_identical(optimizer_adadelta(lambda)$learning_rate, 0.25)
  expect_error(optimizer_adadelta(y ~ x), "`learning_rate` must be a finite number",
               class = "adadelta_error_argument")
  found <- adadelta_optim(3, function(x) (x - 1)^2, control = list(
    learning_rate = ~ 1 / (1 + .x), maxit = 5
  ))
  expect_identical(found$counts[["function"]], 6L)
})

test_that("a rate that a callback or assign() set is shown as people write it", {
  skip_without_keras()
  fit <- function(optimizer, callback) {
    model <- keras$Sequential(list(keras$layers$Input(list(1L)), keras$layers$Dense(1L)))
    model$compile(optimizer = optimizer, loss = "mse")
    model$fit(matrix(1:4 / 4), matrix(1:4 / 4), epochs = 2L, verbose = 0L,
              callbacks = list(callback))
    optimizer
  }
  plateau <- keras$callbacks$ReduceLROnPlateau("loss", 0.1, 1L, min_delta = 1e9)
  scheduler <- function(f) keras$callbacks$LearningRateScheduler(f)
  assigned <- stepped()
  assigned$learning_rate$assign(0.3)
  cases <- list(
    list(fit(optimizer_adadelta(0.01), plateau), 0.001),
    list(fit(optimizer_adadelta(), scheduler(function(epoch, rate) rate)), 0.001),
    list(fit(optimizer_adadelta(0.4), scheduler(function(epoch, rate) rate / 2)), 0.1),
    list(assigned, 0.3)
  )
  for (case in cases) {
    expect_identical(as.list(case[[1]])$learning_rate, case[[2]])
    expect_identical(optimizer_state(case[[1]])$hyperparameters$learning_rate, case[[2]])
    if (case[[2]] != 0.001) {
      shown <- paste0("learning_rate  ", case[[2]], "$")
      expect_true(any(grepl(shown, format(case[[1]]))))
    }
  }
  expect_match(format(cases[[1]][[1]])[[2]], "all settings at their defaults")
})

test_that("the advice on one optimizer in two models is R's", {
  skip_without_keras()
  optimizer <- stepped()
  expect_error(optimizer$build(list(keras$Variable(1))), "for example with update(optimizer)",
               fixed = TRUE)
})
