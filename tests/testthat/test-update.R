test_that("as.list() has the settings, and they make the same optimizer", {
  skip_without_keras()
  optimizer <- optimizer_adadelta(
    1, weight_decay = 0.01, global_clipnorm = 5, skip_nonfinite = TRUE, name = "mine"
  )
  settings <- as.list(optimizer)
  arguments <- setdiff(names(formals(optimizer_adadelta)), "...")
  expect_true(all(arguments %in% names(settings)))
  expect_true(settings$skip_nonfinite)
  expect_null(settings$clipnorm)
  again <- do.call(optimizer_adadelta, settings)
  expect_identical(as.list(again), settings)
  expect_true(all.equal(again, optimizer))
})

test_that("update() changes what it is told to, and nothing else", {
  skip_without_keras()
  optimizer <- stepped(1, weight_decay = 0.01, maximize = TRUE, use_ema = TRUE)
  before <- list(as.list(optimizer), optimizer_state(optimizer))
  changed <- update(optimizer, rho = 0.9, weight_decay = NULL)
  expect_identical(list(as.list(optimizer), optimizer_state(optimizer)), before)
  expect_s3_class(changed, "adadelta.Adadelta")
  expect_false(changed$built)
  expected <- before[[1]]
  expected$rho <- 0.9
  expected["weight_decay"] <- list(NULL)
  expect_identical(as.list(changed), expected)
  copy <- update(optimizer)
  expect_identical(as.list(copy), before[[1]])
  expect_false(identical(copy, optimizer))
})

test_that("update() keeps schedules, R functions and what is not decayed", {
  skip_without_keras()
  schedule <- keras$optimizers$schedules$ExponentialDecay(0.5, 10L, 0.9)
  expect_identical(as.list(update(optimizer_adadelta(schedule), rho = 0.9))$learning_rate,
                   as.list(optimizer_adadelta(schedule))$learning_rate)
  for (rate in list(function() 0.25, function(step) 0.25)) {
    changed <- update(optimizer_adadelta(rate), rho = 0.9)
    changed$build(list(keras$Variable(1)))
    expect_identical(attr(summary(changed), "learning_rate"), 0.25)
    changed <- update(optimizer_adadelta(0.5), learning_rate = rate)
    changed$build(list(keras$Variable(1)))
    expect_identical(attr(summary(changed), "learning_rate"), 0.25)
  }
  optimizer <- optimizer_adadelta(weight_decay = 0.1)
  optimizer$exclude_from_weight_decay(var_names = list("bias"))
  expect_identical(
    as.list(update(optimizer, rho = 0.9))$exclude_from_weight_decay,
    as.list(optimizer)$exclude_from_weight_decay
  )
  excluded <- as.list(update(optimizer, exclude_from_weight_decay = list(words = "kernel")))
  expect_identical(excluded$exclude_from_weight_decay$words, "kernel")
})

test_that("a schedule that Keras could not make again is kept", {
  skip_without_keras()
  reticulate::py_run_string(paste(
    "import keras",
    "class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):",
    "    def __call__(self, step):",
    "        return 0.125",
    "    def get_config(self):",
    "        return {'lost': object}",
    sep = "\n"
  ))
  schedule <- reticulate::py$OwnSchedule()
  changed <- update(optimizer_adadelta(schedule), rho = 0.9)
  changed$build(list(keras$Variable(1)))
  expect_identical(attr(summary(changed), "learning_rate"), 0.125)
})

test_that("a schedule without a configuration is an error of ours", {
  skip_without_keras()
  reticulate::py_run_string(paste(
    "import keras",
    "class BareSchedule(keras.optimizers.schedules.LearningRateSchedule):",
    "    def __call__(self, step):",
    "        return 0.125",
    sep = "\n"
  ))
  error <- error_of(as.list(optimizer_adadelta(reticulate::py$BareSchedule())))
  expect_s3_class(error, "adadelta_error_state")
  expect_match(conditionMessage(error), "get_config")
})

test_that("a rate that was changed in training is the number that it is now", {
  skip_without_keras()
  optimizer <- stepped(1)
  optimizer$learning_rate <- 0.5
  changed <- update(optimizer, rho = 0.9)
  expect_identical(as.list(changed)$learning_rate, 0.5)
  changed$learning_rate <- 0.25
  expect_identical(as.list(optimizer)$learning_rate, 0.5)
})

test_that("update() refuses what optimizer_adadelta() refuses, with the same messages", {
  skip_without_keras()
  optimizer <- optimizer_adadelta(1)
  bad <- list(
    list(roh = 0.9), list(lr = 1), list(decay = 0.1), list(rho = 1.5), list(rho = NA),
    list(rho = c(0.1, 0.2)), list(0.9), list(rho = 0.9, rho = 0.8), list(learning_rate = "a"),
    list(learning_rate = function(a, b) 1), list(clipnorm = 1, clipvalue = 1),
    list(gradient_accumulation_steps = 2.5), list(exclude_from_weight_decay = "bias"),
    list(name = NA_character_)
  )
  for (arguments in bad) {
    error <- error_of(do.call(update, c(list(optimizer), arguments)))
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    expect_identical(conditionCall(error)[[1]], quote(update))
    # R itself refuses a repeated argument, and accepts one without a name.
    if (!is.null(names(arguments)) && !anyDuplicated(names(arguments))) {
      expect_identical(
        conditionMessage(error), conditionMessage(error_of(do.call(optimizer_adadelta, arguments)))
      )
    }
  }
  expect_identical(as.list(optimizer)$rho, 0.95)
})

test_that("an optimizer of an earlier session has no settings", {
  skip_without_keras()
  gone <- of_earlier_session(optimizer_adadelta(1))
  expect_earlier_session(as.list(gone))
  expect_earlier_session(update(gone, rho = 0.9))
})
