test_that("an error names the call that the user wrote", {
  skip_without_keras()
  call_of <- function(code) conditionCall(error_of(code))
  expect_identical(call_of(optimizer_adadelta(rho = 2)), quote(optimizer_adadelta(rho = 2)))
  expect_identical(
    call_of(adadelta::optimizer_adadelta(rho = 2)),
    quote(adadelta::optimizer_adadelta(rho = 2))
  )
  expect_identical(
    call_of(do.call(optimizer_adadelta, list(rho = 2))),
    quote(optimizer_adadelta(rho = 2))
  )
  expect_identical(
    call_of(do.call("optimizer_adadelta", list(rho = 2))),
    quote(optimizer_adadelta(rho = 2))
  )
  mine <- function(...) optimizer_adadelta(learning_rate = 1, ...)
  expect_identical(call_of(mine(rho = 2)), quote(optimizer_adadelta(learning_rate = 1, ...)))
})

test_that("an error can be caught by its class, and prints as R's own do", {
  skip_without_keras()
  caught <- tryCatch(optimizer_adadelta(rho = 2), adadelta_error = function(error) "caught")
  expect_identical(caught, "caught")
  try(optimizer_adadelta(rho = c(0.1, 0.2)), silent = TRUE)
  expect_identical(geterrmessage(), paste0(
    "Error in optimizer_adadelta(rho = c(0.1, 0.2)) : \n",
    "  `rho` must be a number of at least 0 and less than 1; received c(0.1, 0.2)\n"
  ))
})

test_that("messages name what R has, as R writes it", {
  skip_without_keras()
  expect_error(optimizer_adadelta(rho = 1), "received 1$")
  expect_error(optimizer_adadelta(clipnorm = 1, clipvalue = 2), "clipnorm=1, clipvalue=2$")
  expect_error(
    optimizer_adadelta(decay = 1),
    "keras$optimizers$schedules$InverseTimeDecay(learning_rate, decay_steps=1, decay_rate=1)",
    fixed = TRUE
  )
  expect_error(
    optimizer_state(optimizer_adadelta()), "optimizer$build(model$trainable_variables)",
    fixed = TRUE
  )
  path <- withr::local_tempfile(lines = "no state")
  expect_error(read_optimizer_state(path), "save_optimizer_state()", fixed = TRUE)
})

test_that("an error in an argument itself is left as it is", {
  skip_without_keras()
  error <- error_of(optimizer_adadelta(rho = stop("mine")))
  expect_identical(conditionMessage(error), "mine")
  expect_false(inherits(error, "adadelta_error"))
})

test_that("an argument that is missing is an error of the function that was called", {
  forgetful <- function(path) read_optimizer_state(path)
  cases <- list(
    list("optimizer", quote(optimizer_state())),
    list("optimizer", quote(save_optimizer_state(path = "a.safetensors"))),
    list("path", quote(save_optimizer_state(NULL))),
    list("path", quote(load_optimizer_state(NULL))),
    list("path", quote(read_optimizer_state())),
    list("path", quote(forgetful()), quote(read_optimizer_state(path))),
    list("from", quote(convert_optimizer_state())),
    list("to", quote(convert_optimizer_state("a.safetensors"))),
    list("model", quote(save_model_atomically(path = "a.keras"))),
    list("path", quote(save_model_atomically(NULL))),
    list("backend", quote(use_backend())),
    list("par", quote(adadelta_optim(fn = sum))),
    list("fn", quote(adadelta_optim(1))),
    list("from", quote(adadelta_translate(to = "torch"))),
    list("to", quote(adadelta_translate("torch", lr = 1)))
  )
  for (case in cases) {
    error <- error_of(eval(case[[2]]))
    expect_s3_class(error, "adadelta_error")
    expect_identical(
      conditionMessage(error), sprintf("argument \"%s\" is missing, with no default", case[[1]])
    )
    expect_identical(conditionCall(error), case[[length(case)]])
  }
  error <- error_of(do.call(save_optimizer_state, list(NULL)))
  expect_identical(conditionCall(error), quote(save_optimizer_state(NULL)))
})

test_that("so is the second of two optimizers to compare", {
  skip_without_keras()
  optimizer <- optimizer_adadelta()
  error <- error_of(all.equal(optimizer))
  expect_s3_class(error, "adadelta_error_argument")
  expect_identical(conditionCall(error), quote(all.equal(optimizer)))
})
