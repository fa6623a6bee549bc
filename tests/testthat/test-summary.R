test_that("a summary is a data frame with the numbers of the definitions", {
  skip_without_keras()
  optimizer <- stepped(0.5, epsilon = 1e-3)
  table <- summary(optimizer)
  expect_s3_class(table, c("summary.adadelta.Adadelta", "data.frame"), exact = TRUE)
  expect_match(table$variable, "kernel|bias")
  expect_identical(table$shape, c("2x3", "scalar"))
  expect_identical(table$parameters, c(6, 1))
  averages <- optimizer_state(optimizer)$parameters[[1]]
  rates <- 0.5 * sqrt(averages$acc_delta + 1e-3) / sqrt(averages$square_avg + 1e-3)
  # Computed in float32.
  expect_equal(
    unlist(table[1, c("rate_min", "rate_q25", "rate_median", "rate_q75", "rate_max")]),
    stats::quantile(rates), tolerance = 1e-6, ignore_attr = TRUE
  )
  expect_equal(table$rate_max[[1]], 0.5, tolerance = 1e-6)
  expect_equal(table$gradient_rms[[1]], sqrt(mean(averages$square_avg)), tolerance = 1e-6)
  expect_equal(table$update_rms[[1]], 0.5 * sqrt(mean(averages$acc_delta)), tolerance = 1e-6)
})

test_that("looking changes nothing", {
  skip_without_keras()
  optimizer <- stepped(use_ema = TRUE, gradient_accumulation_steps = 2)
  before <- list(optimizer_state(optimizer), optimizer$get_config())
  capture.output(print(summary(optimizer)), print(optimizer))
  expect_identical(list(optimizer_state(optimizer), optimizer$get_config()), before)
})

test_that("a summary fits 80 columns and returns itself, invisibly", {
  skip_without_keras()
  withr::local_options(width = 80)
  model <- keras$Sequential(list(
    keras$layers$Input(list(1000L)),
    keras$layers$Dense(200L, name = "a_layer_with_a_name_that_is_long"),
    keras$layers$Dense(1L)
  ))
  model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
  model$fit(matrix(stats::rnorm(4000), 4), matrix(1, 4, 1), verbose = 0L)
  table <- summary(model$optimizer)
  lines <- capture.output(shown <- withVisible(print(table)))
  expect_false(shown$visible)
  expect_identical(shown$value, table)
  expect_lte(max(nchar(lines)), 80)
  expect_identical(lines[1:3], c(
    "<Adadelta optimizer>",
    "  built on 4 variables (200,401 numbers), after 1 update",
    "  learning rate 1"
  ))
  expect_match(lines[[6]], "variable +shape +min +25% +median +75% +max gradient +update")
  expect_length(lines, 10)
  # With more width, all names are shown.
  withr::local_options(width = 200)
  expect_match(capture.output(print(table)), table$variable[[1]], fixed = TRUE, all = FALSE)
})

test_that("a part of a summary prints too", {
  skip_without_keras()
  table <- summary(stepped(1))
  expect_output(print(table[2, ]), "bias")
  expect_output(print(table[, c("variable", "rate_median")]), "rate_median")
})

test_that("`digits` is checked", {
  skip_without_keras()
  table <- summary(stepped(1))
  for (bad in list("a", NA, NULL, 0, 2.5, 23, Inf, 1:2)) {
    error <- expect_error(print(table, digits = bad), "`digits` must be a whole number from 1 to",
                          class = "adadelta_error_argument")
    expect_identical(conditionCall(error), quote(print(table, digits = bad)))
  }
  expect_output(print(table, digits = 22), "bias")
})

test_that("as.data.frame() returns the plain data frame", {
  skip_without_keras()
  table <- as.data.frame(summary(stepped(1)))
  expect_identical(class(table), "data.frame")
  expect_output(print(table), "gradient_rms")
})

test_that("before an optimizer is built its summary is empty and says so", {
  skip_without_keras()
  table <- summary(optimizer_adadelta(1))
  expect_identical(nrow(table), 0L)
  expect_identical(names(table), names(summary(stepped(1))))
  expect_identical(capture.output(print(table)), c("<Adadelta optimizer>", "  not yet built"))
})

test_that("an R function as learning rate is asked for the next rate", {
  skip_without_keras()
  table <- summary(stepped(function(step) 1 / (1 + step), calls = 3))
  expect_identical(attr(table, "learning_rate"), 0.25)
  expect_equal(table$rate_max[[1]], 0.25)
})

test_that("variables without elements have no numbers", {
  skip_without_keras()
  optimizer <- optimizer_adadelta(1)
  optimizer$build(list(keras$Variable(matrix(0, 0, 3)), keras$Variable(1)))
  expect_identical(is.nan(summary(optimizer)$rate_median), c(TRUE, FALSE))
  expect_output(print(summary(optimizer)), "0x3 +NaN")
})

test_that("an optimizer of an earlier session has no summary", {
  skip_without_keras()
  gone <- of_earlier_session(stepped(1))
  expect_earlier_session(summary(gone))
  expect_earlier_session(optimizer_state(gone))
  error <- error_of(summary(gone))
  expect_identical(conditionCall(error), quote(summary(gone)))
})

test_that("names lose what they share, then their beginnings, only where they must", {
  names <- c("model/dense/kernel", "model/dense_1/kernel")
  expect_identical(short_names(names, 20), names)
  expect_identical(short_names(names, 14), c("dense/kernel", "dense_1/kernel"))
  expect_identical(short_names(names, 12), c("dense/kernel", "..._1/kernel"))
  expect_identical(short_names("a/kernel_with_a_long_name", 12), "...long_name")
  expect_identical(short_names(character(), 12), character())
})
