# adadelta_optim() on R functions. Results are compared with those of stats::optim() where these
# are known to be right.

bowl <- function(x) sum((x - c(1, 2))^2)
slope <- function(x) 2 * (x - c(1, 2))
start <- c(a = 3, b = -2)

# The method of the paper, which uses gradients only.
published <- list(reduce = FALSE)

# From ?optim. A decreasing rate settles in its narrow valley.
fr <- function(x) 100 * (x[[2]] - x[[1]]^2)^2 + (1 - x[[1]])^2
grr <- function(x) {
  c(-400 * x[[1]] * (x[[2]] - x[[1]]^2) - 2 * (1 - x[[1]]), 200 * (x[[2]] - x[[1]]^2))
}
falling <- c(published, list(
  learning_rate = function(step) 0.3 / (1 + step / 50), epsilon = 0.01
))

test_that("the result is built as that of optim()", {
  skip_without_keras()
  ours <- adadelta_optim(start, bowl, slope)
  theirs <- optim(start, bowl, slope, method = "L-BFGS-B")
  expect_identical(names(ours), names(theirs))
  expect_identical(lapply(ours, class), lapply(theirs, class))
  expect_identical(lapply(ours, names), lapply(theirs, names))
  expect_equal(ours$par, theirs$par)
  expect_identical(ours$convergence, theirs$convergence)
  expect_identical(ours$value, bowl(ours$par))
  expect_match(ours$message, "reltol")
  expect_identical(adadelta_optim(start, bowl, slope, control = published)$message,
    "the value no longer changes by more than reltol")
})

test_that("it finds minima that are known", {
  skip_without_keras()
  expect_equal(adadelta_optim(c(9, -9), bowl, slope)$par, c(1, 2))
  expect_equal(adadelta_optim(5L, function(x) (x - 4)^2, function(x) 2 * (x - 4))$par, 4)
  banana <- adadelta_optim(c(-1.2, 1), fr, grr, control = c(falling, maxit = 8000))
  expect_lt(banana$value, 1e-6)
  # By the value, 0.0002 of the distance along the valley is left: sqrt(2e-7).
  expect_equal(banana$par, c(1, 1), tolerance = 2e-3)
})

test_that("it makes the steps of the rule", {
  skip_without_keras()
  x <- c(-1.2, 1)
  v <- u <- c(0, 0)
  for (step in 0:24) {
    g <- grr(x)
    v <- 0.9 * v + 0.1 * g^2
    d <- sqrt(u + 0.01) / sqrt(v + 0.01) * g
    u <- 0.9 * u + 0.1 * d^2
    x <- x - 0.3 / (1 + step / 50) * d
  }
  seen <- list()
  watched <- function(x) {
    seen[[length(seen) + 1]] <<- x
    fr(x)
  }
  adadelta_optim(c(-1.2, 1), watched, grr, control = c(falling, rho = 0.9, maxit = 25))
  expect_length(seen, 26)
  # Python takes one root of the quotient, so each step is rounded differently.
  expect_equal(seen[[26]], x, tolerance = 1e-12)
})

test_that("differences take the place of a gradient", {
  skip_without_keras()
  with <- adadelta_optim(start, bowl, slope)
  without <- adadelta_optim(start, bowl)
  # Central differences of a square are exact except for rounding, 1e-16 / 1e-3.
  expect_equal(without$par, with$par, tolerance = 1e-6)
  expect_identical(without$counts[["function"]], without$counts[["gradient"]])
  points <- list()
  watched <- function(x) {
    points[[length(points) + 1]] <<- x
    bowl(x)
  }
  result <- adadelta_optim(start, watched, control = list(maxit = 0, ndeps = c(0.5, 0.25)))
  expect_identical(result$counts, c(`function` = 1L, gradient = 1L))
  moved <- lapply(points, function(x) unname(x - start))
  expect_equal(moved, list(c(0, 0), c(0.5, 0), c(-0.5, 0), c(0, 0.25), c(0, -0.25)))
})

test_that("names and further arguments reach both functions", {
  skip_without_keras()
  fn <- function(x, target) (x[["a"]] - target)^2 + x[["b"]]^2
  gr <- function(x, target) 2 * c(x[["a"]] - target, x[["b"]])
  expect_equal(adadelta_optim(start, fn, gr, target = 7)$par, c(a = 7, b = 0))
  # Arguments of optim() are passed on to a function that has arguments of the same names.
  above <- function(x, method) bowl(x) + method
  expect_equal(adadelta_optim(start, above, method = 3)$value, 3, tolerance = 1e-6)
  expect_null(names(adadelta_optim(unname(start), bowl, slope)$par))
  dims <- NULL
  adadelta_optim(diag(2), function(x) {
    dims <<- dim(x)
    sum(x^2)
  }, control = list(maxit = 1))
  expect_null(dims)
})

test_that("it maximizes and scales as optim() does", {
  skip_without_keras()
  top <- adadelta_optim(start, function(x) 5 - bowl(x), function(x) -slope(x),
    control = list(fnscale = -2))
  # It ends when the value is constant to 1e-7, by reltol, whose root is 3e-4.
  expect_equal(top$par, c(a = 1, b = 2), tolerance = 3e-4)
  expect_equal(top$value, 5)
  # Stretched a thousandfold, and scaled back by the same factor.
  long <- function(x) bowl(x / c(1000, 1))
  scaled <- adadelta_optim(start * c(1000, 1), long, control = list(parscale = c(1000, 1)))
  plain <- adadelta_optim(start, bowl)
  expect_equal(scaled$par, plain$par * c(1000, 1))
  gradient <- function(x) slope(x / c(1000, 1)) / c(1000, 1)
  expect_equal(
    adadelta_optim(start * c(1000, 1), long, gradient, control = list(parscale = c(1000, 1)))$par,
    plain$par * c(1000, 1)
  )
})

test_that("it says why it ended", {
  skip_without_keras()
  ended <- function(...) {
    adadelta_optim(start, bowl, slope, control = c(published, ...))[c("convergence", "message")]
  }
  expect_identical(ended(maxit = 5), list(convergence = 1L, message = "maxit was reached"))
  expect_identical(ended(abstol = 1)$convergence, 0L)
  expect_match(ended(abstol = 1)$message, "abstol")
  expect_match(ended(pgtol = 0.1)$message, "pgtol")
  expect_match(ended(reltol = 0.1)$message, "reltol")
  # A start at the minimum has no gradient.
  result <- adadelta_optim(c(1, 2), bowl, slope)
  expect_identical(result$counts, c(`function` = 1L, gradient = 1L))
  expect_identical(result$convergence, 0L)
})

test_that("the best point is returned, not the last", {
  skip_without_keras()
  values <- numeric()
  watched <- function(x) {
    values <<- c(values, fr(x))
    fr(x)
  }
  # With a constant rate the run oscillates out of the valley.
  result <- adadelta_optim(c(-1.2, 1), watched, grr, control = c(published, maxit = 2000))
  expect_identical(result$convergence, 1L)
  expect_identical(result$value, min(values))
  expect_lt(result$value, tail(values, 1) / 2)
  expect_identical(fr(result$par), result$value)
})

test_that("what is not finite ends it with the best point so far", {
  skip_without_keras()
  for (bad in list(NA, NaN, Inf, -Inf, NA_integer_)) {
    fn <- function(x) if (x[["a"]] < 2) bad else bowl(x)
    result <- adadelta_optim(start, fn, slope, control = published)
    expect_identical(result$convergence, 52L)
    expect_match(result$message, "^fn returned NA or an infinite number")
    expect_gt(result$par[["a"]], 2)
    expect_lt(result$par[["a"]], 2.1)
    gr <- function(x) if (x[["a"]] < 2) c(0, bad) else slope(x)
    result <- adadelta_optim(start, bowl, gr, control = published)
    expect_identical(result$convergence, 52L)
    expect_match(result$message, "gradient is NA or infinite")
    error <- error_of(adadelta_optim(start, function(x) bad))
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    expect_match(conditionMessage(error), "`fn` must be finite at `par`; received ", fixed = TRUE)
  }
})

test_that("errors in the user's functions arrive as they are", {
  skip_without_keras()
  mine <- function(...) stop(errorCondition("it is mine", class = "mine", call = quote(here())))
  for (error in list(
    error_of(adadelta_optim(start, mine)),
    error_of(adadelta_optim(start, bowl, mine)),
    error_of(adadelta_optim(start, bowl, slope, control = list(learning_rate = mine)))
  )) {
    expect_s3_class(error, "mine")
    expect_identical(conditionMessage(error), "it is mine")
    expect_identical(conditionCall(error), quote(here()))
  }
  warned <- capture_warnings(adadelta_optim(start, function(x) {
    warning("careful")
    bowl(x)
  }, slope, control = list(maxit = 1)))
  expect_identical(warned, c("careful", "careful"))
})

test_that("the learning rate may be a function with or without the step", {
  skip_without_keras()
  steps <- numeric()
  of_step <- function(step) {
    steps <<- c(steps, step)
    0.5
  }
  settings <- function(rate) list(learning_rate = rate, maxit = 3)
  one <- adadelta_optim(start, bowl, slope, control = settings(of_step))
  expect_equal(steps[1:3], 0:2)
  expect_identical(one, adadelta_optim(start, bowl, slope, control = settings(0.5)))
  expect_identical(one, adadelta_optim(start, bowl, slope, control = settings(function() 0.5)))
})

test_that("bad arguments are refused before anything is called", {
  skip_without_keras()
  refused <- function(message, par = start, fn = function(x) stop("called"), gr = NULL, ...) {
    error <- error_of(adadelta_optim(par, fn, gr, ...))
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    expect_match(conditionMessage(error), message, fixed = TRUE)
    expect_identical(conditionCall(error)[[1]], quote(adadelta_optim))
  }
  refused("`par` must be a vector of finite numbers; received \"a\"", par = "a")
  refused("`par` must be", par = c(1, NA))
  refused("`par` must be", par = NULL)
  refused("`par` must be", par = list(1, 2:3))
  refused("`lower` must be a number, or one for each parameter, and not NA", lower = 1:3)
  refused("`upper` must be a number, or one for each parameter, and not NA", upper = NA_real_)
  refused("`lower` must be at most `upper`; received c(0, 5)", lower = c(0, 5), upper = 4)
  refused("`hessian` must be TRUE or FALSE; received NA", hessian = NA)
  refused("`reduce` must be TRUE or FALSE; received \"no\"", control = list(reduce = "no"))
  refused("`fn` must be a function; received 3", fn = 3)
  refused("`gr` must be a function, or NULL; received TRUE", gr = TRUE)
  refused("`control` must be a list with names; received 3", control = 3)
  refused("`control` must be a list with names", control = list(3))
  for (case in list(
    list("`rho` must be a number of at least 0 and less than 1; received 1.5", rho = 1.5),
    list("`epsilon` must be a finite number greater than 0; received NA", epsilon = NA),
    list("`maxit` must be a whole number of at least 0; received 2.5", maxit = 2.5),
    list("`maxit` must be a whole number of at least 0; received NULL", maxit = NULL),
    list("`reltol` must be a finite number of at least 0; received c(1, 2)", reltol = c(1, 2)),
    list("`abstol` must be a number, not NaN; received NaN", abstol = NaN),
    list("`pgtol` must be a finite number of at least 0; received -1", pgtol = -1),
    list("`trace` must be a number of at least 0; received -1", trace = -1),
    list("`REPORT` must be a number of at least 1; received 0", REPORT = 0),
    list("`fnscale` must be a number other than 0; received 0", fnscale = 0),
    list("`parscale` must be numbers other than 0, one for each parameter", parscale = 1),
    list("`ndeps` must be numbers other than 0, one for each parameter", ndeps = c(1, 0))
  )) {
    refused(case[[1]], control = case[-1])
  }
  refused("`learning_rate` must be a finite number of at least 0; received -1", fn = bowl,
          control = list(learning_rate = -1))
  refused("`method` of optim() is no argument of adadelta_optim()", method = "BFGS")
})

test_that("a value that is not finite at the start is shown as `fn` returned it", {
  skip_without_keras()
  received <- function(value, ...) {
    error <- error_of(adadelta_optim(start, function(x) value, ...))
    sub(".*received ", "", conditionMessage(error))
  }
  expect_identical(received(NaN), "NaN")
  expect_identical(received(NA_real_), "NA")
  expect_identical(received(-Inf, control = list(fnscale = -1)), "-Inf")
})

test_that("functions that return something else are refused", {
  skip_without_keras()
  returned <- function(...) conditionMessage(error_of(adadelta_optim(start, ...)))
  expect_match(returned(identity), "`fn` must be a function that returns one number; received c(",
    fixed = TRUE)
  expect_match(returned(function(x) "low"), "received \"low\"", fixed = TRUE)
  expect_match(returned(bowl, function(x) 1),
    "`gr` must be a function that returns a number for each parameter; received 1")
})

test_that("unknown names in control are a warning, as of optim()", {
  skip_without_keras()
  warnings <- list()
  control <- list(maxit = 1, nonsense = 1, alpha = 2)
  result <- withCallingHandlers(
    adadelta_optim(start, bowl, control = control),
    warning = function(warning) {
      warnings[[length(warnings) + 1]] <<- warning
      invokeRestart("muffleWarning")
    }
  )
  expect_length(warnings, 1)
  expect_s3_class(warnings[[1]], "adadelta_warning")
  expect_identical(conditionMessage(warnings[[1]]), "unknown names in control: nonsense, alpha")
  expect_identical(result$counts[["function"]], 2L)
})

test_that("trace shows progress in the form of optim()", {
  skip_without_keras()
  shown <- capture.output(invisible(adadelta_optim(start, bowl, slope,
    control = list(trace = TRUE, REPORT = 2, maxit = 5))))
  shape <- function(lines) gsub("[0-9.]+", "0", lines)
  expect_identical(shape(shown), shape(capture.output(invisible(
    optim(c(-1.2, 1), fr, grr, method = "BFGS", control = list(trace = TRUE, REPORT = 2, maxit = 5))
  ))))
  done <- capture.output(adadelta_optim(start, bowl, slope, control = list(trace = 1)))
  expect_true("converged" %in% done)
})

test_that("a gradient that is not finite at the start is said to be there", {
  skip_without_keras()
  found <- adadelta_optim(0.001, function(p) -log(p) + 1e6 * p, control = list(ndeps = 1e-3))
  expect_identical(found$convergence, 52L)
  expect_match(found$message, "at the start; choose another par, or smaller ndeps", fixed = TRUE)
  found <- adadelta_optim(1, function(p) p, function(p) NaN)
  expect_match(found$message, "^the gradient is NA or infinite at the start")
  expect_identical(found$par, 1)
})

test_that("it needs no Keras, but Python with NumPy", {
  skip_without_keras()
  lines <- run_in_child(c(
    "r <- adadelta_optim(2, function(x) x^2, control = list(maxit = 10))",
    "cat(r$counts[[1]], reticulate::py_eval(\"'keras' in __import__('sys').modules\"))"
  ))
  expect_identical(lines, "11 FALSE")
  lines <- run_in_child(c(
    "error <- tryCatch(adadelta_optim(2, identity), adadelta_error_python = identity)",
    "print(conditionCall(error))",
    "cat(conditionMessage(error))"
  ), RETICULATE_PYTHON = local_python())
  expect_identical(lines[[1]], "adadelta_optim(2, identity)")
  expect_match(lines[[2]], "^NumPy is not installed in ")
  expect_match(lines[[3]], "-m pip install numpy$")
})

test_that("it ends where the best method of optim() does, or says what to try", {
  skip_without_keras()
  testthat::skip_if_not_installed("jsonlite")
  # Takes about 15 seconds.
  skip_on_cran()
  problems <- new.env()
  sys.source(test_path("..", "problems", "problems.R"), problems)
  for (problem in problems$read_problems(test_path("..", "problems", "problems.json"))) {
    # Finite differences for 50 parameters would take as long as all other cases together.
    slopes <- if (length(problem$start) < 50) list(problem$slope, NULL) else list(problem$slope)
    for (slope in slopes) {
      found <- adadelta_optim(problem$start, problem$value, slope)
      # An optimum of 0 is compared as if it were 1e-6.
      is_there <- found$value - problem$best <= 1e-6 * (abs(problem$best) + 1e-6)
      is_told <- found$convergence == 51 && grepl("try gr, other ndeps", found$message)
      expect_true((found$convergence == 0 && is_there) || is_told, label = problem$name)
      expect_true(is_there || (problem$name == "Meyer" && is.null(slope)), label = problem$name)
    }
  }
})

test_that("par may be a list, of any dimensions, or empty, as for optim()", {
  skip_without_keras()
  same <- function(par, ...) {
    ours <- adadelta_optim(par, function(x) sum((x - 3)^2), ...)
    theirs <- optim(par, function(x) sum((x - 3)^2), method = "BFGS", ...)
    expect_equal(ours[c("par", "value", "hessian")], theirs[c("par", "value", "hessian")],
      tolerance = 1e-6)
    expect_identical(ours$convergence, theirs$convergence)
    expect_identical(names(ours), names(theirs))
    expect_identical(attributes(ours$par), attributes(theirs$par))
  }
  same(list(a = 1, b = 2))
  same(matrix(1:4, 2, dimnames = list(c("a", "b"), NULL)), hessian = TRUE)
  same(c(a = 1, b = 2), hessian = TRUE)
  same(numeric())
  same(c(a = 1), control = list(maxit = 0), hessian = TRUE)
})

test_that("it keeps to bounds", {
  skip_without_keras()
  is_inside <- TRUE
  fn <- function(x) {
    is_inside <<- is_inside && all(x >= c(-Inf, 4) & x <= c(2, Inf))
    sum((x - 3)^2) + prod(x)
  }
  gr <- function(x) 2 * (x - 3) + rev(x)
  theirs <- optim(c(2, 9), fn, gr, method = "L-BFGS-B", lower = c(-Inf, 4), upper = c(2, Inf))
  for (control in list(list(), published, list(parscale = c(-0.1, 10)))) {
    for (slope in list(gr, NULL)) {
      ours <- adadelta_optim(c(9, 9), fn, slope, lower = c(-Inf, 4), upper = c(2, Inf),
        control = control)
      expect_equal(ours$par, theirs$par, tolerance = 1e-3)
      expect_identical(ours$convergence, 0L)
    }
  }
  expect_true(is_inside)
  fixed <- adadelta_optim(c(0, 0.5), fr, lower = c(-Inf, 0.5), upper = c(Inf, 0.5))
  expect_identical(fixed$par[[2]], 0.5)
  expect_identical(fixed$convergence, 0L)
})

test_that("what is not finite on the way is stepped back from", {
  skip_without_keras()
  gamma <- function(p) if (p > 0) 2 * log(p) + 3 / p else NA
  expect_equal(adadelta_optim(9, gamma)$par, 1.5, tolerance = 1e-4)
  walled <- adadelta_optim(start, function(x) if (x[[1]] < 2) NaN else bowl(x), slope)
  expect_identical(walled$convergence, 51L)
  expect_match(walled$message, "reduce = FALSE")
  expect_lt(walled$par[[1]], 2.01)
})

test_that("points that measure the curvature are counted, but are no iterations", {
  skip_without_keras()
  steps <- numeric()
  found <- adadelta_optim(c(-1.2, 1), fr, grr, control = list(learning_rate = function(step) {
    steps <<- c(steps, step)
    1
  }))
  expect_identical(steps, as.numeric(seq_along(steps) - 1))
  expect_gt(found$counts[["gradient"]], length(steps))
  calls <- 0
  found <- adadelta_optim(c(-1.2, 1), function(x) {
    calls <<- calls + 1
    fr(x)
  })
  # Calls for differences are not counted, as in optim().
  expect_equal(calls, sum(found$counts * c(1, 4)))
})

test_that("an interrupt gives the best point so far", {
  skip_without_keras()
  skip_on_os("windows")
  code <- c(
    "n <- 0",
    "slow <- function(x) {",
    "  n <<- n + 1",
    "  if (n == 100) tools::pskill(Sys.getpid(), 2)",
    "  for (i in 1:100) Sys.sleep(1e-6)",
    "  100 * (x[[2]] - x[[1]]^2)^2 + (1 - x[[1]])^2",
    "}"
  )
  caught <- run_in_child(c(code,
    "caught <- tryCatch(adadelta_optim(c(-1.2, 1), slow), interrupt = identity)",
    "cat(class(caught), caught$result$value < 24, names(caught$result))"
  ))
  expect_identical(caught, paste(
    "adadelta_interrupt interrupt condition TRUE par value counts convergence message"
  ))
  shown <- run_in_child(c(code,
    "withRestarts(adadelta_optim(c(-1.2, 1), slow), abort = function() cat('aborted'))"
  ))
  expect_match(shown[[1]], "was interrupted. Its best value so far is [0-9.]+, at par = c\\(")
  expect_identical(shown[[2]], "aborted")
})
