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
  expect_error(optimizer_state(1), fixed = TRUE,
               "`optimizer` must be one made by optimizer_adadelta(); received 1")
  expect_error(save_model_atomically(NULL, "x.keras"),
               "`model` must be a Keras model; received NULL")
  expect_error(save_model_atomically(optimizer_adadelta(), "x.keras"),
               "`model` must be a Keras model; received", class = "adadelta_error_state")
})

test_that("a file that is not there, or can't be, is named as it was given", {
  skip_without_keras()
  folder <- withr::local_tempdir()
  missing <- file.path(folder, "None", "state.safetensors")
  message <- function(code) conditionMessage(error_of(code))
  expect_identical(
    message(read_optimizer_state(missing)), paste0("No such file or directory: \"", missing, "\"")
  )
  optimizer <- trained()$optimizer
  expect_identical(
    message(save_optimizer_state(optimizer, missing)),
    paste0("No such file or directory: \"", missing, "\"")
  )
  expect_identical(
    message(save_optimizer_state(optimizer, folder)), paste0("Is a directory: \"", folder, "\"")
  )
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

test_that("a run of Keras' Adadelta goes on from a weights file when that is asked for", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".weights.h5")
  theirs <- trained()
  theirs$compile(optimizer = keras$optimizers$Adadelta(0.5), loss = "mse")
  theirs$fit(cars_x, cars_y, epochs = 2L, verbose = 0L)
  theirs$save_weights(path)
  ours <- trained()
  expect_invisible(load_keras_adadelta(ours, path))
  state <- optimizer_state(ours$optimizer)
  expect_equal(state$step, 2)
  expect_equal(state$hyperparameters$learning_rate, 0.5)
  kernel <- state$parameters[[1]]$square_avg
  expect_identical(c(kernel), c(theirs$optimizer$variables[[3]]$numpy()))
})

test_that("what is no state of Adadelta is refused when a Keras file is asked for it", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".weights.h5")
  theirs <- trained()
  theirs$compile(optimizer = keras$optimizers$Adam(), loss = "mse")
  theirs$fit(cars_x, cars_y, verbose = 0L)
  theirs$save_weights(path)
  ours <- trained()
  before <- optimizer_state(ours$optimizer)
  error <- error_of(load_keras_adadelta(ours, path))
  expect_s3_class(error, "adadelta_error_state")
  expect_match(conditionMessage(error), "adam")
  expect_identical(conditionCall(error)[[1]], quote(load_keras_adadelta))
  expect_identical(optimizer_state(ours$optimizer), before)
  expect_error(load_keras_adadelta(ours, 3), "`path` must be", class = "adadelta_error_state")
  expect_error(
    load_keras_adadelta("ours", path), "`optimizer` must be", class = "adadelta_error_state"
  )
})

test_that("the open window and the dynamic loss scale are part of a state that has them", {
  skip_without_keras()
  optimizer <- stepped(1, gradient_accumulation_steps = 2, loss_scale_factor = "dynamic")
  state <- optimizer_state(optimizer)
  expect_equal(state[c("step", "update", "window")], list(step = 3, update = 1, window = 1))
  expect_identical(state$loss_scale, 2^15)
})

test_that("a file can be read without an optimizer", {
  skip_without_keras()
  path <- withr::local_tempfile(fileext = ".safetensors")
  optimizer <- trained(use_ema = TRUE)$optimizer
  save_optimizer_state(optimizer, path)
  expect_identical(read_optimizer_state(path), optimizer_state(optimizer))
  expect_error(read_optimizer_state("nowhere"), "No such file", class = "adadelta_error_state")
  expect_error(read_optimizer_state(NULL), "`path` must be", class = "adadelta_error_state")
})

test_that("a state gets other names and layouts", {
  skip_without_keras()
  from <- withr::local_tempfile(fileext = ".safetensors")
  to <- withr::local_tempfile(fileext = ".safetensors")
  save_optimizer_state(trained()$optimizer, from)
  before <- read_optimizer_state(from)
  names <- names(before$parameters)
  kernels <- grep("kernel$", names)
  rename <- stats::setNames(c("0.weight", "0.bias", "1.weight", "1.bias"), names)
  perm <- stats::setNames(list(2:1, c(2, 1)), names[kernels])
  expect_invisible(convert_optimizer_state(from, to, rename, perm))
  expect_identical(convert_optimizer_state(from, to, rename, perm), to)
  after <- read_optimizer_state(to)
  expect_setequal(names(after$parameters), rename)
  expect_identical(
    after$parameters[["0.weight"]]$square_avg, t(before$parameters[[names[[1]]]]$square_avg)
  )
  expect_identical(after$parameters[["0.bias"]], before$parameters[[names[[2]]]])
  expect_identical(read_optimizer_state(from), before)
  convert_optimizer_state(from, to, rename[1], keep_others = TRUE)
  expect_setequal(names(read_optimizer_state(to)$parameters), c("0.weight", names[-1]))
})

test_that("an order of axes is that of aperm()", {
  skip_without_keras()
  from <- withr::local_tempfile(fileext = ".safetensors")
  optimizer <- optimizer_adadelta(1)
  kernel <- keras$Variable(array(0, c(2, 3, 4, 5)), name = "kernel")
  optimizer$apply(list(keras$ops$convert_to_tensor(array(1:120, c(2, 3, 4, 5)))), list(kernel))
  save_optimizer_state(optimizer, from)
  before <- read_optimizer_state(from)$parameters
  convert_optimizer_state(from, from, perm = stats::setNames(list(c(4, 3, 1, 2)), names(before)))
  after <- read_optimizer_state(from)$parameters
  expect_equal(after[[1]]$square_avg, aperm(before[[1]]$square_avg, c(4, 3, 1, 2)))
})

test_that("a conversion that does not fit is refused, and nothing is written", {
  skip_without_keras()
  from <- withr::local_tempfile(fileext = ".safetensors")
  to <- withr::local_tempfile(fileext = ".safetensors")
  save_optimizer_state(trained()$optimizer, from)
  names <- names(read_optimizer_state(from)$parameters)
  refused <- function(message, ...) {
    error <- expect_error(
      convert_optimizer_state(from, to, ...), message, class = "adadelta_error_state"
    )
    expect_identical(conditionCall(error)[[1]], quote(convert_optimizer_state))
    expect_false(file.exists(to))
  }
  same <- stats::setNames(names, names)
  refused("neither in `rename` nor in `perm`: .*kernel")
  refused("unknown: nothing", c(nothing = "a"), keep_others = TRUE)
  refused("more than one would be called", replace(same, 1:2, "a"))
  refused("failed", same, stats::setNames(list(c(3, 1, 2)), names[1]))
  for (bad in list("a", 1, NULL, NA, c(a = NA_character_), c(a = "b", a = "c"))) {
    refused("`rename` must be", bad)
  }
  for (bad in list(2:1, list(2:1), list(a = 1.5), list(a = c(1, 3)), list(a = "t"))) {
    refused("`perm` must be", same, bad)
  }
  refused("`keep_others` must be TRUE or FALSE", same, keep_others = NA)
  expect_error(convert_optimizer_state("nowhere", to, same), "No such file",
               class = "adadelta_error_state")
  expect_error(convert_optimizer_state(from, NA, same), "`to` must be the name of a file",
               class = "adadelta_error_state")
})
