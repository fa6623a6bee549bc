test_that("optimizers of the same settings and state are equal", {
  skip_without_keras()
  expect_true(all.equal(optimizer_adadelta(1), optimizer_adadelta(1)))
  expect_true(all.equal(stepped(1, use_ema = TRUE), stepped(1, use_ema = TRUE)))
  rate <- function(step) 1 / (1 + step)
  expect_true(all.equal(optimizer_adadelta(rate), optimizer_adadelta(rate)))
})

test_that("settings that differ are named, with both values", {
  skip_without_keras()
  one <- optimizer_adadelta(1, weight_decay = 0.1)
  expect_identical(
    all.equal(one, update(one, rho = 0.9, weight_decay = NULL)),
    c("rho: target is 0.95, current is 0.9", "weight_decay: target is 0.1, current is NULL")
  )
  expect_match(
    all.equal(optimizer_adadelta(function() 1), optimizer_adadelta(function() 2)),
    "learning_rate: target is function () 1, current is function () 2", fixed = TRUE
  )
  close <- optimizer_adadelta(1 + 1e-6, weight_decay = 0.1)
  expect_true(all.equal(one, close, tolerance = 1e-5))
  expect_match(all.equal(one, close), "learning_rate")
})

test_that("counts and averages that differ are named", {
  skip_without_keras()
  said <- all.equal(stepped(1, calls = 2), stepped(1, calls = 3), tolerance = 100)
  expect_identical(said, paste0(c("step", "update"), ": target is 2, current is 3"))
  said <- all.equal(stepped(1, calls = 2), stepped(1, calls = 3))
  expect_match(said[3:6], "(kernel|bias), (square_avg|acc_delta): Mean relative difference: ")
  expect_identical(
    all.equal(optimizer_adadelta(1), stepped(1)), "target is not built, current is"
  )
  expect_identical(
    all.equal(stepped(1), optimizer_adadelta(1)), "target is built, current is not"
  )
  said <- all.equal(stepped(1), stepped(1, use_ema = TRUE))
  expect_match(said, "average: ", all = FALSE)
  open <- stepped(1, gradient_accumulation_steps = 2, calls = 3)
  closed <- stepped(1, gradient_accumulation_steps = 2, calls = 2)
  expect_match(all.equal(open, closed), "^window: target is 1, current is 0$", all = FALSE)
})

test_that("functions of several lines are told apart by all of their code", {
  skip_without_keras()
  made <- function(rate) {
    optimizer_adadelta(eval(bquote(function(step) {
      early <- step < 100
      if (early) 1 else .(rate)
    })))
  }
  expect_true(all.equal(made(0.1), made(0.1)))
  expect_match(all.equal(made(0.1), made(0.2)), "learning_rate: .* else 0.1 }, .* else 0.2 }")
})

test_that("parameters are the same under Keras' other numbers, and otherwise named", {
  skip_without_keras()
  made <- function(units) {
    keras$utils$set_random_seed(1L)
    layers <- c(list(keras$layers$Input(list(2L))), lapply(units, keras$layers$Dense))
    model <- keras$Sequential(layers)
    model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
    model$fit(matrix(1:8 / 8, 4), matrix(1, 4, 1), verbose = 0L, shuffle = FALSE)
    model$optimizer
  }
  one <- made(c(3L, 1L))
  expect_true(all.equal(one, made(c(3L, 1L))))
  expect_match(
    all.equal(one, made(c(3L, 3L, 1L))), "parameters only in current: .*kernel", all = FALSE
  )
})

test_that("what is no optimizer of this session is not equal", {
  skip_without_keras()
  one <- optimizer_adadelta(1)
  gone <- of_earlier_session(one)
  expect_match(all.equal(one, gone), "current is an optimizer of an earlier session")
  expect_match(all.equal(gone, one), "target is an optimizer of an earlier session")
  expect_match(all.equal(one, 1), "current is numeric")
  expect_match(all.equal(one, keras$optimizers$SGD()), "current is keras")
})

test_that("functions of Python differ by their names", {
  skip_without_keras()
  python <- reticulate::py_run_string("def half(): return 0.5", local = TRUE)
  expect_identical(
    all.equal(optimizer_adadelta(python$half), optimizer_adadelta(1)),
    "learning_rate: target is function half, current is 1"
  )
})
