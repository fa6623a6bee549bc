# Every argument: which values are accepted, their effect, and the message for those refused. The
# cases are shared with tests/python/test_arguments.py.

content <- read_vectors("arguments")

same <- function(actual, expected) {
  if (identical(expected, "Inf")) expected <- Inf
  if (is.list(expected) && !is.null(names(expected))) {
    setequal(names(actual), names(expected)) &&
      all(mapply(same, actual[names(expected)], expected))
  } else {
    identical(actual, expected)
  }
}

check_case <- function(case) {
  call <- str2lang(case$r)
  if (is.null(case$error)) {
    # Keras numbers a name that it has already given.
    if (identical(case$config$name, "adadelta")) keras$utils$clear_session()
    config <- eval(call)$get_config()
    for (key in names(case$config)) {
      expect_true(same(config[[key]], case$config[[key]]), label = paste(case$name, key))
    }
  } else {
    message <- if (is.null(case$error_r)) case$error else case$error_r
    error <- error_of(eval(call))
    expect_identical(conditionMessage(error), message)
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error", "error"))
    expect_identical(conditionCall(error), call)
  }
}

is_about <- function(argument) {
  function(case) identical(case$argument, argument)
}

arguments <- setdiff(names(formals(optimizer_adadelta)), "...")
further <- c("maximize", "decoupled_weight_decay", "skip_nonfinite", "fused")

for (argument in c(arguments, further)) {
  test_that(paste("cases of", argument), {
    skip_without_keras()
    cases <- Filter(is_about(argument), content$cases)
    is_refused <- vapply(cases, function(case) !is.null(case$error), NA)
    expect_gte(sum(is_refused), 2)
    expect_gte(sum(!is_refused), 2)
    for (case in cases) check_case(case)
  })
}

test_that("cases of several arguments, and of arguments that do not exist", {
  skip_without_keras()
  cases <- Filter(is_about(NULL), content$cases)
  expect_gt(length(cases), 5)
  for (case in cases) check_case(case)
})

test_that("every case is about an argument that there is", {
  about <- unique(unlist(lapply(content$cases, `[[`, "argument")))
  expect_setequal(about, c(arguments, further))
})

test_that("the defaults are those of the Python class", {
  skip_without_keras()
  keras$utils$clear_session()
  config <- optimizer_adadelta()$get_config()
  expect_setequal(names(config), c(arguments, further))
  for (argument in arguments) {
    expect_identical(config[[argument]], eval(formals(optimizer_adadelta)[[argument]]))
  }
  expect_setequal(names(core()$DEFAULTS), c(arguments, further))
  for (argument in c(arguments, further)) {
    expect_identical(core()$DEFAULTS[[argument]], config[[argument]])
  }
  inspect <- reticulate::import("inspect")
  class <- reticulate::import_from_path("adadelta", python_folder())$Adadelta
  parameters <- inspect$signature(class)$parameters
  for (argument in setdiff(arguments, "name")) {
    default <- parameters[argument]$default
    expect_identical(default, eval(formals(optimizer_adadelta)[[argument]]))
  }
})

current_rate <- function(optimizer) {
  as.numeric(keras$ops$convert_to_numpy(optimizer$learning_rate))
}

test_that("configurations make the same optimizer again", {
  skip_without_keras()
  schedules <- keras$optimizers$schedules
  optimizers <- list(
    optimizer_adadelta(),
    optimizer_adadelta(0.7, 0.9, 1e-6, 0.01, clipnorm = Inf, use_ema = TRUE, name = "mine"),
    optimizer_adadelta(maximize = TRUE, loss_scale_factor = "dynamic", skip_nonfinite = TRUE),
    optimizer_adadelta(schedules$CosineDecay(0.5, 100L, warmup_steps = 10L, warmup_target = 1)),
    # reticulate converts lists of length one to single values.
    optimizer_adadelta(schedules$PiecewiseConstantDecay(list(10L), list(1, 0.5))),
    optimizer_adadelta(exclude_from_weight_decay = list(paths = list(), words = "bias")),
    optimizer_adadelta(function() 0.5),
    optimizer_adadelta(function(step) 0.5^step)
  )
  for (optimizer in optimizers) {
    config <- optimizer$get_config()
    again <- do.call(optimizer_adadelta, config)
    expect_s3_class(again, "adadelta.Adadelta")
    expect_identical(again$get_config(), config)
    expect_identical(current_rate(again), current_rate(optimizer))
  }
})

test_that("values cross without loss, or not at all", {
  skip_without_keras()
  core()
  for (value in list(TRUE, FALSE, 1L, 0.1, Inf, NaN, -0.5, "NA", "", "\u00fc")) {
    expect_identical(as_python(value), value)
  }
  expect_null(as_python(NULL))
  expect_identical(as_python(c(a = 1)), 1)
  expect_identical(as_python(array(1)), 1)
  expect_identical(as_python(iconv("\u00fc", "UTF-8", "latin1")), "\u00fc")
  others <- list(
    NA, NA_real_, NA_integer_, NA_character_, numeric(), 1:2, c(a = 1, b = 2), 1i, as.raw(1),
    list(), list(1), matrix(1), array(1:2), I(1), factor("a"), Sys.time(), mtcars, y ~ x, quote(x),
    sum, globalenv(), as.difftime(1, units = "secs"), structure(1, class = "mine")
  )
  for (value in others) {
    python <- as_python(value)
    expect_s3_class(python, "adadelta.r.Value")
    expect_identical(python$code, r_code(value))
  }
})

test_that("the code of large values is short", {
  expect_lte(nchar(r_code(runif(1e6))), 500)
  expect_lte(nchar(r_code(mtcars)), 500)
  expect_identical(r_code(c(0.1, 0.2)), "c(0.1, 0.2)")
})
