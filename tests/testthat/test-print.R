test_that("an optimizer shows what differs from the defaults", {
  skip_without_keras()
  expect_identical(format(optimizer_adadelta()), c(
    "<Adadelta optimizer>",
    "  all settings at their defaults",
    "  not yet built"
  ))
  expect_output(print(optimizer_adadelta(1, weight_decay = 0.01)), paste(
    "<Adadelta optimizer>",
    "  learning_rate  1",
    "  weight_decay   0.01",
    "  the rest at its defaults",
    "  not yet built",
    sep = "\n"
  ), fixed = TRUE)
  expect_identical(format(optimizer_adadelta(function(step) 1))[[2]],
                   "  learning_rate  function (step) 1")
  expect_identical(format(optimizer_adadelta(function() 1))[[2]], "  learning_rate  function () 1")
  schedule <- keras$optimizers$schedules$InverseTimeDecay(0.5, 100L, 0.75)
  expect_match(format(optimizer_adadelta(schedule))[[2]],
               "InverseTimeDecay(initial_learning_rate = 0.5, decay_steps = 100L, ", fixed = TRUE)
})

test_that("the defaults are known without making an optimizer to compare with", {
  skip_without_keras()
  optimizer <- optimizer_adadelta(1)
  class <- reticulate::import("adadelta")$Adadelta
  constructor <- class[["__init__"]]
  withr::defer(class[["__init__"]] <- constructor)
  class[["__init__"]] <- function(...) stop("one was made")
  expect_error(optimizer_adadelta(), "one was made")
  expect_identical(format(optimizer)[2:3], c("  learning_rate  1", "  the rest at its defaults"))
})

test_that("print() and summary() say the same of how far an optimizer is", {
  skip_without_keras()
  for (optimizer in list(optimizer_adadelta(), stepped(1))) {
    printed <- format(optimizer)
    said <- utils::capture.output(print(summary(optimizer)))
    expect_identical(said[1:2], c(printed[[1]], utils::tail(printed, 1)))
  }
})

test_that("a function of Python, and a schedule inside of another, are shown too", {
  skip_without_keras()
  python <- reticulate::py_run_string("
import keras
def half():
    return 0.5
class Outer(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, inner):
        self.inner = inner
    def __call__(self, step):
        return self.inner(step)
    def get_config(self):
        return {'inner': self.inner}
", local = TRUE)
  expect_match(format(optimizer_adadelta(python$half))[[2]], "^  learning_rate  <function half at ")
  inner <- keras$optimizers$schedules$CosineDecay(1, 10L)
  outer <- optimizer_adadelta(python$Outer(inner))
  expect_match(format(outer)[[2]], "Outer\\(inner = .*CosineDecay")
})

test_that("a long function is shown as far as there is room for it", {
  skip_without_keras()
  withr::local_options(width = 60)
  optimizer <- optimizer_adadelta(function(step) {
    rate <- 1 / (1 + step / 1000)
    max(rate, 0.01)
  })
  expect_identical(format(optimizer)[[2]],
                   "  learning_rate  function (step) { rate <- 1/(1 + step/10...")
})

test_that("printing a function or a schedule does not load TensorFlow", {
  skip_without_keras()
  skip_if_not(keras$config$backend() == "jax")
  lines <- run_in_child(c(
    "print(optimizer_adadelta(function() 1))",
    "print(optimizer_adadelta(function(step) 1))",
    "schedules <- reticulate::import('keras')$optimizers$schedules",
    "print(optimizer_adadelta(schedules$CosineDecay(1, 10L)))",
    "cat(reticulate::py_eval('\"tensorflow\" in __import__(\"sys\").modules'))"
  ), KERAS_BACKEND = "jax")
  expect_match(lines, "function (step) 1", fixed = TRUE, all = FALSE)
  expect_identical(utils::tail(lines, 1), "FALSE")
})

test_that("print() returns its argument, invisibly", {
  skip_without_keras()
  optimizer <- optimizer_adadelta()
  capture.output(shown <- withVisible(print(optimizer)))
  expect_false(shown$visible)
  expect_identical(shown$value, optimizer)
})

test_that("an optimizer shows what it is built on and how far it has come", {
  skip_without_keras()
  variables <- list(keras$Variable(matrix(0, 2, 3)), keras$Variable(0))
  optimizer <- optimizer_adadelta()
  optimizer$build(variables)
  last <- function(optimizer) utils::tail(format(optimizer), 1)
  expect_identical(last(optimizer), "  built on 2 variables (7 numbers), after 0 updates")
  gradients <- list(keras$ops$ones(reticulate::tuple(2L, 3L)), keras$ops$ones(reticulate::tuple()))
  optimizer$apply(gradients, variables)
  expect_identical(last(optimizer), "  built on 2 variables (7 numbers), after 1 update")

  optimizer <- optimizer_adadelta(gradient_accumulation_steps = 2)
  for (call in 1:5) optimizer$apply(gradients[2], variables[2])
  expect_identical(last(optimizer),
                   "  built on 1 variable (1 number), after 2 updates in 5 calls")
})

test_that("an optimizer of an earlier session says that it is one", {
  skip_without_keras()
  path <- withr::local_tempfile()
  saveRDS(optimizer_adadelta(), path)
  expect_match(format(readRDS(path)), "earlier session")
})
