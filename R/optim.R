#' Minimize a function with Adadelta
#'
#' Minimizes a function of a numeric vector with Adadelta (Zeiler 2012). Its
#' arguments and its result are like those of [stats::optim()]. It needs Python
#' with NumPy, but no Keras.
#'
#' The default method is for functions without noise. After 20 steps (or twice the
#' number of parameters), or after ten steps in a row without a lower value, it
#' returns to the best point and measures the curvature there, with two gradients
#' for each parameter. It stops if, by that curvature, no more than `reltol` can
#' be gained. Otherwise it continues from there in coordinates in which the
#' curvature has the same size in all directions, and with half the learning rate
#' if nothing was gained. With more than 1,000 parameters it does not measure the
#' curvature, and stops by `pgtol` alone. `vignette("minimizing", "adadelta")`
#' compares it with the methods of [stats::optim()]: it needs more calls than
#' `"BFGS"`.
#'
#' With `reduce = FALSE` in `control`, it is the published method, for functions
#' with noise and for trying out what training does. This method uses the gradient
#' only, and never checks whether the value falls. Its first steps are about
#' `learning_rate * sqrt(epsilon / (1 - rho))` long. They grow while they agree in
#' direction, so it needs thousands of steps. At a constant rate it can swing ever
#' wider in a narrow valley; at a falling rate it settles there, as in the
#' example. It returns the best point that it has seen, which, if `fn` is noisy,
#' may be just the luckiest one.
#'
#' @section Differences from the original: `fn` gets the numbers and the names of
#'   `par`, and no other attributes. Finite differences are relative to each
#'   parameter, unless `control` has `ndeps`. The only method accepts all settings
#'   of `lower` and `upper`, and a `lower` above `upper` is an error. With
#'   `maxit = 0`, `fn` is called once. If `fn` or the gradient becomes `NA` or
#'   infinite on the way, the method returns to the best point and halves the
#'   rate, which may end in code 51; [stats::optim()] with finite differences
#'   raises an error.
#'
#' @section Interrupts: An interrupt does not lose the result so far. The
#'   interrupt is signaled as a condition of class `adadelta_interrupt`, which is
#'   also of class `interrupt`; its `result` is the list that would have been
#'   returned. If no [tryCatch()] catches it, the best parameters are shown, and R
#'   returns to the top level.
#'
#' @section Control: The list `control` can contain, as in [stats::optim()]:
#'   \describe{
#'     \item{`trace`}{A number greater than 0 shows progress as `"BFGS"` does,
#'       with the lowest value so far. Default: 0.}
#'     \item{`REPORT`}{How many iterations apart progress is shown. Default: 10.}
#'     \item{`fnscale`}{A number that values and gradients are divided by;
#'       negative to maximize. Default: 1.}
#'     \item{`parscale`}{Numbers that the parameters are divided by;
#'       `learning_rate` applies to the divided ones. Default: 1 for each.}
#'     \item{`ndeps`}{The steps of the central differences that replace the
#'       gradient without `gr`, for the divided parameters. Default: `2^-20` times
#'       the parameter, or `2^-27` where it is closer to 0 than 1/128.}
#'     \item{`maxit`}{The largest number of iterations, a whole number of at
#'       least 0. Default: 10000.}
#'     \item{`reltol`}{It stops when, by the measured curvature, the value,
#'       divided by `fnscale`, can fall by no more than
#'       `reltol * (abs(value) + reltol)`. With `reduce = FALSE`, it stops when
#'       the value changed by no more than that in `1 / (1 - rho)` successive
#'       iterations. At least 0. Default: `sqrt(.Machine$double.eps)`.}
#'     \item{`abstol`}{It stops when the value, divided by `fnscale`, is at most
#'       this. Default: `-Inf`.}
#'     \item{`pgtol`}{It stops when no element of the gradient, divided by
#'       `fnscale` and multiplied by `parscale`, is larger than this, except for
#'       elements that lead across a bound. At least 0. Default: 0.}
#'   }
#'   and the settings of Adadelta, with the defaults of the paper except for `reduce`:
#'   \describe{
#'     \item{`reduce`}{`FALSE` for the published method, see above. Default: `TRUE`.}
#'     \item{`learning_rate`}{A finite number of at least 0, or a function that
#'       returns one: without arguments, or of the number of iterations so far.
#'       Default: 1.}
#'     \item{`rho`}{How slowly the averages change, at least 0 and less than 1.
#'       Default: 0.95.}
#'     \item{`epsilon`}{Added inside both square roots, greater than 0. Default:
#'       1e-6.}
#'   }
#'   Other names are ignored with a warning, as [stats::optim()] does.
#'
#' @section Errors: A bad argument is an error of class `adadelta_error_argument`,
#'   and so is an `fn` that does not return one number or is not finite at `par`,
#'   and a `gr` that does not return a number for each parameter. An error inside
#'   `fn`, `gr` or a learning rate is passed on unchanged. A Python that is
#'   missing, too old or without NumPy is an error of class
#'   `adadelta_error_python`. All are of class `adadelta_error`.
#'
#' @param par Where to start: a vector, an array or a list of finite numbers. Its
#'   names, and no other attributes, are passed on to `fn` and `gr`.
#' @param fn The function to minimize: of a vector such as `par`, and `...`; it
#'   returns one number.
#' @param gr The gradient: a function of the same arguments that returns a number
#'   for each parameter. `NULL`, the default, for finite differences.
#' @param ... Further arguments for `fn` and `gr`.
#' @param lower,upper Bounds: a number, or one for each parameter. Steps end at a
#'   bound that they would cross, and `fn` is never called outside. `par` is moved
#'   to the nearest bounds.
#' @param control A list of settings, see below.
#' @param hessian Whether to return the Hessian, by [stats::optimHess()].
#'
#' @return A list as of [stats::optim()]:
#'   \item{par}{The best parameters found, with the names and dimensions of `par`.}
#'   \item{value}{The value of `fn` there.}
#'   \item{counts}{How often `fn` and `gr` were called, including the points that
#'     measure the curvature. As in [stats::optim()], calls of `fn` for finite
#'     differences are not counted: without `gr` there are two for each parameter
#'     and gradient.}
#'   \item{convergence}{0 for success; 1 when `maxit` was reached; 51 when no step
#'     finds a lower value though the gradient is not 0; 52 when `fn` or the
#'     gradient returned `NA` or an infinite number on the way, with
#'     `reduce = FALSE`, or the gradient did so at the start.}
#'   \item{message}{Why it stopped and, if it was no success, what to try.}
#'   \item{hessian}{With `hessian = TRUE`: the Hessian at `par`.}
#'
#' @references
#' Dauphin, Y. N. et al. (2014). Identifying and attacking the saddle point problem in
#' high-dimensional non-convex optimization. \doi{10.48550/arXiv.1406.2572}; the
#' coordinates are those of its saddle-free Newton method.
#'
#' Zeiler, M. D. (2012). ADADELTA: An Adaptive Learning Rate Method.
#' \doi{10.48550/arXiv.1212.5701}; the defaults are those of its section 4.1.
#'
#' @seealso [stats::optim()]
#' @export
#' @examplesIf keras_available()
#' # The banana of ?optim, narrow and bent
#' fr <- function(x) 100 * (x[2] - x[1]^2)^2 + (1 - x[1])^2
#' grr <- function(x) {
#'   c(-400 * x[1] * (x[2] - x[1]^2) - 2 * (1 - x[1]), 200 * (x[2] - x[1]^2))
#' }
#' adadelta_optim(c(-1.2, 1), fr, grr)
#' adadelta_optim(c(-1.2, 1), fr, upper = c(0.5, Inf), hessian = TRUE)
#'
#' # The published method, with a rate that falls
#' falling <- function(step) 0.3 / (1 + step / 50)
#' adadelta_optim(c(-1.2, 1), fr, grr, control = list(
#'   reduce = FALSE, learning_rate = falling, epsilon = 0.01, maxit = 8000
#' ))
adadelta_optim <- function(par, fn, gr = NULL, ..., lower = -Inf, upper = Inf, control = list(),
                           hessian = FALSE) {
  call <- named_call(sys.call(), "adadelta_optim")
  check_given(call)
  check_functions(fn, gr, names(match.call(expand.dots = FALSE)$...), call)
  start <- check_par(par, call)
  bounds <- check_bounds(lower, upper, length(start), call)
  if (!isTRUE(hessian) && !isFALSE(hessian)) refuse("hessian", "TRUE or FALSE", hessian, call)
  module <- core_without_keras(call)
  control <- check_control(control, default_control(length(start), module), call)
  at <- function(x) stats::setNames(x * control$parscale, names(par))
  value_at <- function(x) check_value(fn(at(x), ...), call) / control$fnscale
  # A negative scale swaps the bounds.
  sides <- lapply(bounds, function(bound) bound / control$parscale)
  box <- list(lower = do.call(pmin, sides), upper = do.call(pmax, sides))
  gradient_at <- if (is.null(gr)) {
    near <- difference_steps(control$ndeps, module)
    function(x) differences(value_at, x, near(x), box)
  } else {
    factor <- control$parscale / control$fnscale
    function(x) check_gradient(gr(at(x), ...), start, call) * factor
  }
  answer <- function(found) {
    # Whatever is not a list keeps its names and dimensions.
    if (is.list(par)) par <- stats::setNames(start, names(par))
    par[] <- found$x * control$parscale
    list(
      par = par,
      value = found$value * control$fnscale,
      counts = found$counts,
      convergence = found$end$convergence,
      message = found$end$message
    )
  }
  found <- minimize(module, start / control$parscale, box, value_at, gradient_at, control, call)
  result <- answer(found)
  if (found$was_interrupted) signal_interrupt(result, call)
  if (hessian) {
    scales <- control[c("fnscale", "parscale", "ndeps")]
    scales <- scales[lengths(scales) > 0]
    result$hessian <- stats::optimHess(result$par, fn, gr, ..., control = scales)
  }
  result
}

# R evaluates the functions and Python computes the steps. Neither calls the other's functions, so
# an error in `fn` is an ordinary R error.
minimize <- function(module, x, box, value_at, gradient_at, control, call) {
  settings <- lapply(control[python_control], as_python)
  numbers <- lapply(list(x, box$lower, box$upper), python_numbers)
  run <- value_of(
    module$attempt("Minimization", numbers[[1]], settings, numbers[[2]], numbers[[3]]),
    "argument", call
  )
  tell <- run$tell
  rate_at <- rate_of_step(control$learning_rate, call)
  show <- progress(control)
  counts <- c(`function` = 0L, gradient = 0L)
  point <- run$`next`()
  lowest <- Inf
  rate <- NULL
  # After an interrupt, the best point so far is the answer.
  was_interrupted <- tryCatch({
    repeat {
      x <- as.double(point$x)
      value <- value_at(x)
      counts[["function"]] <- counts[["function"]] + 1L
      if (counts[["function"]] == 1L) check_start(value * control$fnscale, call)
      lowest <- min(lowest, value, na.rm = TRUE)
      if (point$on_path) {
        show(point$step, lowest)
        rate <- as_python(rate_at(point$step))
      }
      gradient <- rep(NaN, length(x))
      if (is.finite(value)) {
        gradient <- gradient_at(x)
        counts[["gradient"]] <- counts[["gradient"]] + 1L
      }
      told <- tell(value, python_numbers(gradient), rate)
      value_of(told, "argument", call)
      if (!is.null(told$reason)) break
      point <- told
    }
    FALSE
  }, interrupt = function(interrupt) TRUE)
  best <- run$best()
  if (is.null(best)) best <- list(x = x, value = NA_real_)
  end <- optim_ends[[if (was_interrupted) "interrupt" else told$reason]]
  # With maxit = 0, optim() reports success, too.
  if (control$maxit == 0 && identical(end, optim_ends$maxit)) end$convergence <- 0L
  show(point$step, best$value, end)
  list(
    x = as.double(best$x), value = best$value, counts = counts, end = end,
    was_interrupted = was_interrupted
  )
}

# A handler of interrupts gets the result. Without one the result is shown, since it would be lost.
signal_interrupt <- function(result, call) {
  condition <- structure(
    class = c("adadelta_interrupt", "interrupt", "condition"),
    list(message = result$message, call = call, result = result)
  )
  signalCondition(condition)
  message(sprintf(
    "adadelta_optim() was interrupted. Its best value so far is %s, at par = %s",
    format(result$value), paste(deparse(result$par, width.cutoff = 500L), collapse = "")
  ))
  invokeRestart("abort")
}

optim_ends <- list(
  pgtol = list(convergence = 0L, message = "no element of the gradient is larger than pgtol"),
  reltol = list(convergence = 0L, message = "the value no longer changes by more than reltol"),
  gain = list(
    convergence = 0L, message = "by the measured curvature no more than reltol can be gained"
  ),
  xtol = list(convergence = 0L, message = "the parameters no longer move"),
  abstol = list(convergence = 0L, message = "the value is at most abstol"),
  maxit = list(convergence = 1L, message = "maxit was reached"),
  rate = list(
    convergence = 51L,
    message = paste(
      "no step finds a lower value, but the gradient is not 0; try gr, other ndeps or parscale,",
      "or another par; reduce = FALSE if fn is noisy"
    )
  ),
  interrupt = list(convergence = 99L, message = "it was interrupted"),
  value = list(
    convergence = 52L,
    message = "fn returned NA or an infinite number; a smaller learning_rate may help"
  ),
  gradient = list(
    convergence = 52L,
    message = "the gradient is NA or infinite; a smaller learning_rate may help"
  ),
  gradient_at_start = list(
    convergence = 52L,
    message = "the gradient is NA or infinite at the start; choose another par, or smaller ndeps"
  )
)

# The settings that Python checks and uses.
python_control <- c("maxit", "reltol", "abstol", "pgtol", "rho", "epsilon", "reduce")

default_control <- function(length, module) {
  c(
    list(
      trace = 0, REPORT = 10, fnscale = 1, parscale = rep(1, length), ndeps = NULL,
      reltol = sqrt(.Machine$double.eps), abstol = -Inf, pgtol = 0
    ),
    module$control_defaults()
  )
}

check_control <- function(control, defaults, call) {
  if (!is.list(control) || (length(control) && is.null(names(control)))) {
    refuse("control", "a list with names", control, call)
  }
  unknown <- setdiff(names(control), names(defaults))
  if (length(unknown)) {
    warn(paste("unknown names in control:", paste(unknown, collapse = ", ")), call)
  }
  known <- intersect(names(control), names(defaults))
  checked <- replace(defaults, known, control[known])
  if (is.logical(checked$trace)) checked$trace <- as.numeric(checked$trace)
  for (name in names(r_control)) check_numbers(name, checked, length(defaults$parscale), call)
  checked
}

check_numbers <- function(name, control, parameters, call) {
  value <- control[[name]]
  if (name == "ndeps" && is.null(value)) return()
  size <- if (name %in% c("parscale", "ndeps")) parameters else 1
  if (!are_finite(value, size) || !all(r_control[[name]]$accepts(value))) {
    refuse(name, r_control[[name]]$requirement, value, call)
  }
}

# The settings that only R uses.
r_control <- list(
  trace = list(requirement = "a number of at least 0", accepts = function(value) value >= 0),
  REPORT = list(requirement = "a number of at least 1", accepts = function(value) value >= 1),
  fnscale = list(requirement = "a number other than 0", accepts = function(value) value != 0),
  parscale = list(
    requirement = "numbers other than 0, one for each parameter",
    accepts = function(value) value != 0
  ),
  ndeps = list(
    requirement = "numbers other than 0, one for each parameter",
    accepts = function(value) value != 0
  )
)

are_finite <- function(value, length) {
  is.numeric(value) && length(value) == length && all(is.finite(value))
}

check_par <- function(par, call) {
  numbers <- par
  if (is.list(par) && all(vapply(par, are_finite, NA, length = 1L))) {
    numbers <- vapply(par, as.double, 0)
  }
  if (is.null(par) || !are_finite(numbers, length(par))) {
    refuse("par", "a vector of finite numbers", par, call)
  }
  as.double(numbers)
}

check_bounds <- function(lower, upper, length, call) {
  bounds <- list(lower = lower, upper = upper)
  for (name in names(bounds)) {
    bound <- bounds[[name]]
    if (!is.numeric(bound) || anyNA(bound) || !(length(bound) %in% c(1, length))) {
      refuse(name, "a number, or one for each parameter, and not NA", bound, call)
    }
  }
  bounds <- lapply(bounds, function(bound) rep_len(as.double(bound), length))
  if (any(bounds$lower > bounds$upper)) {
    refuse("lower", "at most `upper`", lower, call)
  }
  bounds
}

check_value <- function(value, call) {
  if (length(value) != 1 || !may_be_numbers(value)) {
    refuse("fn", "a function that returns one number", value, call)
  }
  as.double(value)
}

check_gradient <- function(value, par, call) {
  if (length(value) != length(par) || !may_be_numbers(value)) {
    refuse("gr", "a function that returns a number for each parameter", value, call)
  }
  as.double(value)
}

# A plain NA is logical.
may_be_numbers <- function(value) is.numeric(value) || is.logical(value)

refuse <- function(name, requirement, value, call) {
  fail(refusal(name, requirement, value), "argument", call)
}

check_start <- function(value, call) {
  if (!is.finite(value)) {
    is_missing <- is.na(value) && !is.nan(value)
    refuse("fn", "finite at `par`", if (is_missing) NA else value, call)
  }
}

check_functions <- function(fn, gr, extra, call) {
  if (!is.function(fn)) refuse("fn", "a function", fn, call)
  if (!is.null(gr) && !is.function(gr)) refuse("gr", "a function, or NULL", gr, call)
  # The `method` of a call of optim() would otherwise go to `fn` unnoticed, if that accepts `...`.
  extra <- intersect("method", extra)
  extra <- setdiff(extra, names(formals(args(fn))))
  if (length(extra)) {
    message <- sprintf("`%s` of optim() is no argument of adadelta_optim()", extra[[1]])
    fail(message, "argument", call)
  }
}

# Returns the learning rate as a function of the step.
rate_of_step <- function(rate, call) {
  if (!is_rate_function(rate)) return(function(step) rate)
  # optim() calls such functions, too. Here the step is always known, and nothing is compiled.
  if (is.function(rate) && identical(names(formals(args(rate))), "...")) return(rate)
  fun <- rate_function(rate, call)
  if (length(formals(args(fun))) == 0) function(step) fun() else fun
}

# A single number is put into a list, since reticulate would convert it to a scalar.
python_numbers <- function(x) if (length(x) == 1) list(x) else x

# Returns the steps of the finite differences as a function of the point.
difference_steps <- function(ndeps, module) {
  if (!is.null(ndeps)) return(function(x) ndeps)
  sizes <- module$differences()
  function(x) sizes$part * pmax(abs(x), sizes$smallest)
}

differences <- function(value_at, x, steps, box) {
  vapply(seq_along(x), function(i) {
    ahead <- behind <- x
    ahead[[i]] <- min(max(x[[i]] + steps[[i]], box$lower[[i]]), box$upper[[i]])
    behind[[i]] <- min(max(x[[i]] - steps[[i]], box$lower[[i]]), box$upper[[i]])
    length <- ahead[[i]] - behind[[i]]
    # Between equal bounds a parameter can't move.
    if (length == 0) 0 else (value_at(ahead) - value_at(behind)) / length
  }, numeric(1))
}

# Shows progress in the format of optim().
progress <- function(control) {
  if (!control$trace) return(function(...) invisible())
  function(step, value, end = NULL) {
    if (!is.null(end)) {
      cat(sprintf("final  value %f \n", value))
      how <- if (end$convergence == 0) "converged" else end$message
      if (end$convergence == 1) how <- sprintf("stopped after %d iterations", as.integer(step))
      cat(how, "\n", sep = "")
    } else if (step == 0) {
      cat(sprintf("initial  value %f \n", value))
    } else if (step %% control$REPORT == 0) {
      cat(sprintf("iter%4d value %f\n", step, value))
    }
  }
}
