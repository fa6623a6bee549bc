test_that("learning_rate() is the number that was given, before, in and after training", {
  skip_without_keras()
  optimizer <- optimizer_adadelta()
  expect_identical(learning_rate(optimizer), 0.001)
  optimizer <- stepped(0.3)
  expect_identical(learning_rate(optimizer), 0.3)
  # A callback sets the rate that it has read in single precision.
  optimizer$learning_rate <- as.numeric(keras$ops$convert_to_numpy(optimizer$learning_rate)) / 2
  expect_identical(learning_rate(optimizer), 0.15)
})

test_that("learning_rate() of a schedule and of a function is the rate of the next step", {
  skip_without_keras()
  expect_equal(learning_rate(stepped(function(step) 1 / (1 + step), calls = 3)), 0.25)
  expect_equal(learning_rate(optimizer_adadelta(~ 1 / (2 + .x))), 0.5)
  expect_equal(learning_rate(optimizer_adadelta(function() 0.125)), 0.125)
  schedule <- keras$optimizers$schedules$InverseTimeDecay(1, 1L, 1)
  expect_equal(learning_rate(stepped(schedule, calls = 3)), 0.25)
})

test_that("learning_rate<- sets it, also inside a LossScaleOptimizer, and in a model", {
  skip_without_keras()
  optimizer <- stepped(1)
  before <- optimizer_state(optimizer)$parameters
  learning_rate(optimizer) <- 0.2
  expect_identical(learning_rate(optimizer), 0.2)
  expect_identical(optimizer_state(optimizer)$parameters, before)
  wrapped <- keras$optimizers$LossScaleOptimizer(optimizer)
  expect_identical(learning_rate(wrapped), 0.2)
  learning_rate(wrapped) <- 0.5
  expect_identical(learning_rate(optimizer), 0.5)
  learning_rate(optimizer) <- function(step) 2 + step
  expect_equal(learning_rate(optimizer), 5)
  model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
  model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
  learning_rate(model$optimizer) <- 0.75
  expect_identical(learning_rate(model$optimizer), 0.75)
})

test_that("learning_rate() and learning_rate<- refuse what is no optimizer, and no rate", {
  skip_without_keras()
  for (bad in list(NULL, 1, keras$optimizers$SGD())) {
    error <- expect_error(learning_rate(bad), "`optimizer` must be one made by",
                          class = "adadelta_error_argument")
    expect_identical(conditionCall(error), quote(learning_rate(bad)))
    expect_error(learning_rate(bad) <- 1, "`optimizer` must be", class = "adadelta_error_argument")
  }
  expect_error(learning_rate(), "\"optimizer\" is missing", class = "adadelta_error_argument")
  optimizer <- optimizer_adadelta(1)
  for (bad in list(-1, NA, "fast", c(1, 2), function(a, b) 1)) {
    error <- expect_error(learning_rate(optimizer) <- bad, "`learning_rate` must be",
                          class = "adadelta_error_argument")
    expect_identical(conditionCall(error)[[2]], quote(learning_rate(optimizer)))
  }
  expect_identical(learning_rate(optimizer), 1)
  expect_earlier_session(learning_rate(of_earlier_session(optimizer)))
})
