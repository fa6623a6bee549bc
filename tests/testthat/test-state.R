trained <- function(...) {
  keras <- reticulate::import("keras")
  keras$utils$set_random_seed(1L)
  model <- keras$Sequential(list(
    keras$layers$Input(list(2L)), keras$layers$Dense(3L, name = "hidden"), keras$layers$Dense(1L)
  ))
  model$compile(optimizer = optimizer_adadelta(1, ...), loss = "mse")
  model$fit(cars_x, cars_y, epochs = 2L, verbose = 0L, shuffle = FALSE)
  model
}
cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
cars_x <- cars[, 2:3]
cars_y <- cars[, 1, drop = FALSE]

test_that("the state is a list of R arrays by the names of the parameters", {
  skip_without_keras()
  state <- optimizer_state(trained(use_ema = TRUE)$optimizer)
  expect_named(state, c("step", "update", "skipped", "hyperparameters", "parameters"))
  expect_equal(state$step, 2)
  expect_equal(state$hyperparameters$learning_rate, 1)
  kernel <- state$parameters[[grep("hidden/kernel$", names(state$parameters))]]
  expect_setequal(names(kernel), c("square_avg", "acc_delta", "average"))
  expect_equal(dim(kernel$square_avg), c(2L, 3L))
  expect_true(all(kernel$square_avg > 0))
})

test_that("a state goes through a file into another optimizer, and training goes on alike", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".safetensors")
  one <- trained(gradient_accumulation_steps = 3)
  expect_identical(save_optimizer_state(one$optimizer, path), one$optimizer)
  two <- trained(gradient_accumulation_steps = 3)
  two$set_weights(one$get_weights())
  expect_invisible(load_optimizer_state(two$optimizer, path))
  expect_identical(
    unname(optimizer_state(two$optimizer)$parameters),
    unname(optimizer_state(one$optimizer)$parameters)
  )
  for (model in list(one, two)) {
    model$fit(cars_x, cars_y, epochs = 2L, verbose = 0L, shuffle = FALSE)
  }
  expect_identical(two$get_weights(), one$get_weights())
})

test_that("a state that does not fit is refused, and nothing changes", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".safetensors")
  save_optimizer_state(trained(use_ema = TRUE)$optimizer, path)
  model <- trained()
  before <- optimizer_state(model$optimizer)
  error <- expect_error(load_optimizer_state(model$optimizer, path), class = "adadelta_error_state")
  expect_match(conditionMessage(error), "use_ema")
  expect_identical(conditionCall(error)[[1]], quote(load_optimizer_state))
  expect_identical(optimizer_state(model$optimizer), before)
})

test_that("files that are none of ours, damaged or missing are told apart", {
  skip_without_keras()
  optimizer <- trained()$optimizer
  path <- withr::local_tempfile(fileext = ".safetensors")
  expect_error(
    load_optimizer_state(optimizer, path), "No such file", class = "adadelta_error_state"
  )
  save_optimizer_state(optimizer, path)
  bytes <- readBin(path, "raw", file.size(path))
  writeBin(bytes[seq_len(length(bytes) - 9)], path)
  expect_error(load_optimizer_state(optimizer, path), class = "adadelta_error_state")
  bytes[length(bytes) - 3] <- xor(bytes[length(bytes) - 3], as.raw(1))
  writeBin(bytes, path)
  expect_error(load_optimizer_state(optimizer, path), "damaged", class = "adadelta_error_state")
})

test_that("an optimizer that is not built, and what is none, are refused", {
  skip_without_keras()
  expect_error(optimizer_state(optimizer_adadelta()), "build", class = "adadelta_error_state")
  for (none in list(NULL, 1, NA, "a", mtcars, sum)) {
    expect_error(optimizer_state(none), class = "adadelta_error_state")
    expect_error(save_optimizer_state(none, "x"), class = "adadelta_error_state")
    expect_error(save_model_atomically(none, "x.keras"), class = "adadelta_error_state")
  }
  expect_false(file.exists("x.keras"))
})

test_that("a path must be one string", {
  skip_without_keras()
  optimizer <- trained()$optimizer
  for (path in list(NULL, NA_character_, c("a", "b"), 1, "")) {
    expect_error(save_optimizer_state(optimizer, path), "`path` must be", class = "adadelta_error")
    expect_error(load_optimizer_state(optimizer, path), "`path` must be", class = "adadelta_error")
  }
})

test_that("a model is saved with its optimizer and loads again", {
  skip_without_keras()
  keras <- reticulate::import("keras")
  path <- withr::local_tempfile(fileext = ".keras")
  model <- trained()
  save_model_atomically(model, path)
  loaded <- keras$saving$load_model(path)
  expect_s3_class(loaded$optimizer, "adadelta.Adadelta")
  expect_identical(loaded$get_weights(), model$get_weights())
  expect_identical(optimizer_state(loaded$optimizer)$step, optimizer_state(model$optimizer)$step)
  expect_error(save_model_atomically(model, "model.h5"), "must end in", class = "adadelta_error")
})
