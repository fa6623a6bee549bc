test_that("each combination is trained once, with an optimizer of its own", {
  skip_without_keras()
  base <- optimizer_adadelta(1, weight_decay = 0.01)
  seen <- list()
  table <- adadelta_grid(base, learning_rate = c(0.1, 1), rho = c(0.9, 0.95), fit = function(it) {
    expect_false(it$built)
    it$build(list(keras$Variable(1)))
    seen <<- c(seen, list(as.list(it)[c("learning_rate", "rho", "weight_decay")]))
    c(loss = it$rho, rate = learning_rate(it))
  })
  expect_identical(names(table), c("learning_rate", "rho", "loss", "rate", "error"))
  expect_identical(table$learning_rate, c(0.1, 1, 0.1, 1))
  expect_identical(table$rho, c(0.9, 0.9, 0.95, 0.95))
  expect_identical(table$rho, table$loss)
  expect_identical(table$learning_rate, table$rate)
  expect_identical(table$error, rep(NA_character_, 4))
  expect_identical(unique(vapply(seen, `[[`, 0, "weight_decay")), 0.01)
  expect_false(base$built)
  expect_identical(learning_rate(base), 1)
})

test_that("lists hold schedules, functions and NULL, and their names are shown", {
  skip_without_keras()
  schedule <- keras$optimizers$schedules$InverseTimeDecay(0.5, 1L, 1)
  table <- adadelta_grid(
    optimizer_adadelta(), learning_rate = list(falling = schedule, own = ~ 0.25, 1),
    clipnorm = list(NULL, 2), fit = learning_rate
  )
  expect_identical(table$learning_rate, rep(c("falling", "own", "1"), 2))
  expect_identical(table$clipnorm, rep(c(NA, 2), each = 3))
  expect_equal(table$value, rep(c(0.5, 0.25, 1), 2))
  rates <- list(function() 1)
  table <- adadelta_grid(optimizer_adadelta(), learning_rate = rates, fit = learning_rate)
  expect_identical(table$learning_rate, "function () 1")
})

test_that("what fit returns can be a number, a list or a row, and differ", {
  skip_without_keras()
  results <- list(
    2, c(a = 1), list(a = 2, b = "text"), data.frame(b = "more", a = 3L), array(4, 1)
  )
  number <- 0
  table <- adadelta_grid(optimizer_adadelta(), rho = 1:5 / 10, fit = function(it) {
    number <<- number + 1
    results[[number]]
  })
  expect_identical(table$value, c(2, NA, NA, NA, 4))
  expect_identical(table$a, c(NA, 1, 2, 3, NA))
  expect_identical(table$b, c(NA, NA, "text", "more", NA))
})

test_that("a training that fails does not end the others", {
  skip_without_keras()
  results <- list(
    quote(stop("it failed")), 0.5, c(1, 2), c(rho = 1), list(loss = list(1)), list(loss = mean),
    keras$callbacks$History()
  )
  number <- 0
  table <- adadelta_grid(optimizer_adadelta(), rho = 1:7 / 10, fit = function(it) {
    number <<- number + 1
    eval(results[[number]])
  })
  expect_named(table, c("rho", "value", "error"))
  expect_identical(table$value, replace(rep(NA_real_, 7), 2, 0.5))
  expect_identical(table$error[1:2], c("it failed", NA))
  received <- sub(".*must return a number, .*; received ", "", table$error[-c(1, 2, 4)])
  expect_identical(
    received,
    c(
      "c(1, 2)", "list(loss = list(1))", "list(loss = function (x, ...) UseMethod(\"mean\"))",
      "a Python object of class keras.src.callbacks.history.History"
    )
  )
  expect_match(table$error[[4]], "`rho`.*already")
})

test_that("an error of Keras is one of its cell", {
  skip_without_keras()
  table <- adadelta_grid(optimizer_adadelta(), rho = 0.9, fit = function(it) {
    model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
    model$compile(optimizer = it, loss = "mse")
    model$fit(matrix(0, 8, 3), matrix(0, 8, 1), verbose = 0L)
    1
  })
  expect_identical(names(table), c("rho", "error"))
  expect_match(table$error, "^ValueError: .*shape.*")
  expect_false(grepl("\n|\033|py_last_error|JAX has removed", table$error))
})

test_that("an interrupt keeps what was trained", {
  skip_without_keras()
  number <- 0
  expect_warning(
    table <- adadelta_grid(optimizer_adadelta(), rho = 1:3 / 10, fit = function(it) {
      number <<- number + 1
      if (number == 2) stop(structure(class = c("interrupt", "condition"), list()))
      number
    }),
    "interrupted in training 2 of 3", class = "adadelta_warning"
  )
  expect_identical(table$value, c(1, NA, NA))
  expect_identical(table$error, c(NA, "interrupted", "interrupted"))
})

test_that("arguments are refused before anything is trained", {
  skip_without_keras()
  optimizer <- optimizer_adadelta()
  fit <- function(it) stop("it was trained")
  refused <- function(code, pattern) {
    error <- expect_error(code, pattern, class = "adadelta_error_argument")
    expect_identical(conditionCall(error)[[1]], quote(adadelta_grid))
  }
  refused(adadelta_grid(optimizer, rho = c(0.5, 2), fit = fit), "`rho` must be")
  refused(adadelta_grid(optimizer, roh = 0.5, fit = fit), "did you mean `rho`")
  refused(adadelta_grid(optimizer, 0.5, fit = fit), "must be named")
  refused(adadelta_grid(optimizer, rho = numeric(), fit = fit), "`rho` must be a vector or a list")
  refused(adadelta_grid(optimizer, rho = sum, fit = fit), "`rho` must be a vector or a list")
  refused(adadelta_grid(optimizer, fit = fit), "at least one argument")
  refused(adadelta_grid(optimizer, rho = 0.5), "\"fit\" is missing")
  refused(adadelta_grid(optimizer, rho = 0.5, fit = 1), "`fit` must be a function")
  refused(adadelta_grid(1, rho = 0.5, fit = fit), "`optimizer` must be one made by")
  expect_earlier_session(adadelta_grid(of_earlier_session(optimizer), rho = 0.5, fit = fit))
})
