# Handlers that jumped out of a call into Python ended the session: each case has a separate one.
fitting <- c(
  "keras <- reticulate::import('keras')",
  "x <- matrix(seq(-1, 1, length.out = 800), 200)",
  "y <- x %*% c(1, -2, 3, 0.5)",
  "model_with <- function(..., run_eagerly = FALSE) {",
  "  keras$utils$set_random_seed(1L)",
  "  model <- keras$Sequential(list(keras$layers$Input(list(4L)), keras$layers$Dense(1L)))",
  "  optimizer <- optimizer_adadelta(...)",
  "  model$compile(optimizer = optimizer, loss = 'mse', run_eagerly = run_eagerly)",
  "  model",
  "}",
  # As keras3 calls it.
  "fit <- function(object, ..., epochs = 60L) {",
  "  do.call(object$fit, list(x, y, epochs = epochs, verbose = 0L, ...))",
  "}",
  "say <- function(...) cat(paste0('> ', ...), sep = '\\n')",
  "ran <- function(model) length(model$history$history$loss)",
  "kinds <- function(condition) say(paste(class(condition), collapse = ' '))"
)

said <- function(...) {
  lines <- run_in_child(c(fitting, ...))
  sub("^> ", "", grep("^> ", lines, value = TRUE))
}

test_that("a monitor's warning can be caught, and comes when fit() has returned", {
  skip_without_keras()
  lines <- said(
    "monitor <- function() list(adadelta_monitor())",
    "model <- model_with()",
    "caught <- tryCatch(fit(model, callbacks = monitor()), warning = identity)",
    "kinds(caught)",
    "say(deparse(conditionCall(caught)), ' ', ran(model))",
    "fit(model, epochs = 1L)",
    "caught <- tryCatch(",
    "  model_with()$fit(x, y, epochs = 60L, verbose = 0L, callbacks = monitor()),",
    "  adadelta_warning = function(warning) 'plain'",
    ")",
    "say(caught)",
    "model <- model_with()",
    "say(class(suppressWarnings(fit(model, callbacks = monitor())))[[1]], ' ', ran(model))",
    "options(warn = 2)",
    "model <- model_with()",
    "error <- tryCatch(fit(model, callbacks = monitor()), error = identity)",
    "say(grepl('converted from warning', conditionMessage(error)), ' ', ran(model))",
    "say(ran(fit(model, epochs = 2L)$model))"
  )
  expect_identical(lines, c(
    "adadelta_warning warning condition", "adadelta_monitor() 60", "plain",
    "keras.src.callbacks.history.History 60", "TRUE 60", "2"
  ))
})

test_that("of several warnings the first is caught, and each is seen by a calling handler", {
  skip_without_keras()
  lines <- said(
    "x[3, 2] <- NaN",
    "monitor <- function() list(adadelta_monitor(every = 2))",
    "first <- tryCatch(fit(model_with(), callbacks = monitor()), warning = conditionMessage)",
    "all <- character()",
    "withCallingHandlers(",
    "  fit(model_with(), callbacks = monitor()),",
    "  warning = function(warning) {",
    "    all <<- c(all, conditionMessage(warning))",
    "    invokeRestart('muffleWarning')",
    "  }",
    ")",
    # The layers of the second model have different numbers.
    "same <- function(text) gsub('[_0-9]', '', text)",
    "say(length(all) >= 1, ' ', same(first) == same(all[[1]]), ' ', anyDuplicated(all))"
  )
  expect_identical(lines, "TRUE TRUE 0")
})

test_that("what an R function as learning rate signals waits as well, and its error ends fit()", {
  skip_without_keras()
  lines <- said(
    "asked <- 0",
    "rate <- function() {",
    "  asked <<- asked + 1",
    "  warning('careful')",
    "  message('asked')",
    "  signalCondition(structure(class = c('mine', 'condition'), list(message = '', call = NULL)))",
    "  0.1",
    "}",
    "model <- model_with(rate, run_eagerly = TRUE)",
    "go <- function() fit(model, epochs = 1L)",
    "say(tryCatch(go(), warning = conditionMessage), ' ', asked)",
    "say(trimws(tryCatch(suppressWarnings(go()), message = conditionMessage)), ' ', asked)",
    "kinds(tryCatch(suppressWarnings(go()), mine = identity))",
    "messages <- 0",
    "suppressWarnings(withCallingHandlers(go(), message = function(message) {",
    "  messages <<- messages + 1",
    "  invokeRestart('muffleMessage')",
    "}))",
    "say(messages)",
    "fails <- function(step) stop(errorCondition('broken', class = 'own', call = quote(f(x))))",
    "model <- model_with(fails, run_eagerly = TRUE)",
    "weights <- model$get_weights()",
    "kinds(tryCatch(fit(model), adadelta_error = identity))",
    "error <- tryCatch(fit(model), error = identity)",
    "say(conditionMessage(error), ' in ', deparse(conditionCall(error)), ' ', ran(model))",
    "say(identical(weights, model$get_weights()))",
    "variable <- keras$Variable(1)",
    "step <- function(optimizer) {",
    "  optimizer$apply(list(keras$ops$convert_to_tensor(1)), list(variable))",
    "}",
    "say(class(tryCatch(step(optimizer_adadelta(fails)), adadelta_error = identity))[[1]])",
    "model$compile(optimizer = optimizer_adadelta(1), loss = 'mse')",
    "say(ran(fit(model, epochs = 2L)$model))"
  )
  expect_identical(lines, c(
    "careful 7", "asked 14", "mine condition", "7",
    "adadelta_error_function adadelta_error own error condition", "broken in f(x) 1", "TRUE",
    "adadelta_error_function", "2"
  ))
})

test_that("an error or an interrupt while progress is shown ends fit(), which then can go on", {
  skip_without_keras()
  skip_on_os("windows")
  lines <- said(
    "showing <- function(code) {",
    "  show <- function(what, ...) adadelta:::called_by_python(if (what == 'epoch') code())",
    "  list(adadelta:::core()$progress_callback(show, Inf, ''))",
    "}",
    "model <- model_with(1)",
    "error <- tryCatch(fit(model, callbacks = showing(function() stop('broken'))),",
    "                  adadelta_error = identity)",
    "kinds(error)",
    "say(conditionMessage(error), ' ', ran(model))",
    "interrupt <- function() {",
    "  tools::pskill(Sys.getpid(), tools::SIGINT)",
    "  for (i in 1:1e6) sqrt(i)",
    "}",
    "for (i in 1:3) {",
    "  say(tryCatch({fit(model, callbacks = showing(interrupt)); 'went on'},",
    "               interrupt = function(interrupt) 'interrupted'))",
    "  say(ran(fit(model, epochs = 2L)$model), ' ', all(is.finite(model$get_weights()[[1]])))",
    "}",
    "message <- tryCatch(fit(model, callbacks = showing(function() message('shown'))),",
    "                    message = identity)",
    "say(trimws(conditionMessage(message)), ' ', ran(model))"
  )
  expect_identical(lines, c(
    "adadelta_error_function adadelta_error simpleError error condition", "broken 1",
    rep(c("interrupted", "2 TRUE"), 3), "shown 60"
  ))
})

test_that("a state that was left out when a model was loaded is a warning of the user's call", {
  skip_without_keras()
  reticulate::py_run_string("
import warnings
from adadelta._state.record import StateWarning

class Loader:
    def load_model(self, path):
        warnings.warn('it was left out', StateWarning)
        warnings.warn('it was left out', StateWarning)
        return path
")
  loader <- reticulate::py$Loader()
  optimizer_adadelta()
  warned <- list()
  value <- withCallingHandlers(loader$load_model("a.keras"), warning = function(warning) {
    warned <<- c(warned, list(warning))
    invokeRestart("muffleWarning")
  })
  expect_identical(value, "a.keras")
  expect_length(warned, 2)
  expect_s3_class(
    warned[[1]], c("adadelta_warning_state", "adadelta_warning", "warning", "condition"),
    exact = TRUE
  )
  expect_identical(conditionMessage(warned[[1]]), "it was left out")
  expect_identical(conditionCall(warned[[1]]), quote(loader$load_model("a.keras")))
  caught <- tryCatch(
    do.call(loader$load_model, list("a.keras")), adadelta_warning_state = identity
  )
  expect_null(conditionCall(caught))
})

test_that("without a call into Python nothing waits, and Python warns", {
  expect_false(defer(simpleWarning("nobody called")))
  answer <- called_by_python(stop("mine"))
  expect_identical(answer, list(kind = "error", message = "mine", waits = FALSE))
  expect_identical(called_by_python(NULL), list(kind = "value", value = NULL))
  expect_identical(
    tryCatch(called_by_python(warning("left")), warning = function(warning) "caught")$kind, "jump"
  )
})

test_that("a model whose trainable weights have changed since is loaded, with a warning", {
  skip_without_keras()
  lines <- said(
    "model <- fit(model_with(), epochs = 1L)$model",
    "model$trainable <- FALSE",
    "path <- tempfile(fileext = '.keras')",
    "model$save(path)",
    "kinds(tryCatch(keras$saving$load_model(path), warning = identity))",
    "loaded <- suppressWarnings(keras$saving$load_model(path))",
    "say(all.equal(loaded$get_weights(), model$get_weights()))",
    "loaded$trainable <- TRUE",
    "loaded$compile(optimizer = optimizer_adadelta(), loss = 'mse')",
    "say(ran(fit(loaded, epochs = 2L)$model))"
  )
  expect_identical(
    lines, c("adadelta_warning_state adadelta_warning warning condition", "TRUE", "2")
  )
})
