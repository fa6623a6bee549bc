#' Minimize a function with Adadelta
#'
#' Minimizes a function of a numeric vector with Adadelta (Zeiler 2012), called
#' and answering as [stats::optim()]. It needs Python with NumPy, but no Keras.
#'
#' Adadelta looks at the gradient only, never at whether the value falls. Its
#' steps begin at about `learning_rate * sqrt(epsilon)` and lengthen as they
#' agree, so it takes thousands of them where [stats::optim()]'s `"BFGS"` takes
#' tens. It is for functions whose gradient is noisy, and for trying out what
#' training does. With a constant rate it can swing ever wider in a narrow
#' valley; a rate that falls settles there, as in the example.
#'
#' What is returned is the best point that it saw; of a noisy `fn` that may be the
#' luckiest. There are no bounds; for a Hessian there is [stats::optimHess()].
#'
#' @section Control: The list `control` takes, as in [stats::optim()]:
#'   \describe{
#'     \item{`trace`}{Whether to show progress: a number greater than 0 does.
#'       Default: 0.}
#'     \item{`REPORT`}{After how many iterations it is shown again. Default: 10.}
#'     \item{`fnscale`}{What values and gradients are divided by; negative to
#'       maximize. Default: 1.}
#'     \item{`parscale`}{What the parameters are divided by: `learning_rate` is
#'       about the divided ones. Default: 1 for each.}
#'     \item{`ndeps`}{The steps of the differences that stand for the gradient
#'       without `gr`, on the divided parameters. Default: 0.001 for each.}
#'     \item{`maxit`}{The largest number of iterations, a whole number of at
#'       least 0. Default: 10000.}
#'     \item{`reltol`}{It ends when in `1 / (1 - rho)` successive iterations the
#'       value, divided by `fnscale`, changed by no more than
#'       `reltol * (abs(value) + reltol)`. At least 0. Default:
#'       `sqrt(.Machine$double.eps)`.}
#'     \item{`abstol`}{It ends when the value, divided by `fnscale`, is at most
#'       this. Default: `-Inf`.}
#'     \item{`pgtol`}{It ends when no element of the gradient, divided by
#'       `fnscale` and times `parscale`, is larger. At least 0. Default: 0.}
#'   }
#'   and of Adadelta, with the defaults of the paper:
#'   \describe{
#'     \item{`learning_rate`}{A finite number of at least 0, or a function that
#'       returns one: without arguments, or of the number of iterations so far.
#'       Default: 1.}
#'     \item{`rho`}{How slowly the averages change, at least 0 and less than 1.
#'       Default: 0.95.}
#'     \item{`epsilon`}{What is added inside both square roots, greater than 0.
#'       Default: 1e-6.}
#'   }
#'   Other names are ignored with a warning, as [stats::optim()] does.
#'
#' @section Errors: A bad argument is an error of class
#'   `adadelta_error_argument`, and so is an `fn` that does not return one
#'   number or is not finite at `par`, and a `gr` that does not return a number
#'   for each parameter. An error inside `fn`, `gr` or a learning rate arrives
#'   as it is. A Python that is missing, too old or without NumPy is an error of
#'   class `adadelta_error_python`. All are of class `adadelta_error`.
#'
#' @param par Where to start: a numeric vector of finite numbers. Its names, and
#'   no other attributes, are passed on to `fn` and `gr`.
#' @param fn The function to minimize: of a vector such as `par`, and `...`; it
#'   returns one number.
#' @param gr The gradient: a function of the same arguments that returns a number
#'   for each parameter. `NULL`, the default, for differences.
#' @param ... Further arguments for `fn` and `gr`.
#' @param control A list of settings, see below.
#'
#' @return A list as of [stats::optim()]:
#'   \item{par}{The best parameters found, with the names of `par`.}
#'   \item{value}{The value of `fn` there.}
#'   \item{counts}{How often `fn` and `gr` were called, but for the calls of `fn`
#'     for differences.}
#'   \item{convergence}{0 for success; 1 when `maxit` was reached; 52 when `fn` or
#'     the gradient returned `NA` or an infinite number on the way, or the gradient
#'     did at the start.}
#'   \item{message}{Why it ended.}
#'
#' @references
#' Zeiler, M. D. (2012). ADADELTA: An Adaptive Learning Rate Method.
#' \doi{10.48550/arXiv.1212.5701}; the defaults are those of its section 4.1.
#'
#' @seealso [stats::optim()]
#' @export
#' @examplesIf keras_available()
#' # A bowl
#' adadelta_optim(c(a = 3, b = -2), function(x) sum((x - 1)^2), function(x) 2 * (x - 1))
#'
#' # The banana of ?optim, narrow and bent, with a rate that falls
#' fr <- function(x) 100 * (x[2] - x[1]^2)^2 + (1 - x[1])^2
#' grr <- function(x) {
#'   c(-400 * x[1] * (x[2] - x[1]^2) - 2 * (1 - x[1]), 200 * (x[2] - x[1]^2))
#' }
#' falling <- function(step) 0.3 / (1 + step / 50)
#' adadelta_optim(c(-1.2, 1), fr, grr, control = list(
#'   learning_rate = falling, epsilon = 0.01, maxit = 8000
#' ))
adadelta_optim <- function(par, fn, gr = NULL, ..., control = list()) {
  call <- named_call(sys.call(), "adadelta_optim")
  check_given(call)
  check_functions(fn, gr, names(match.call(expand.dots = FALSE)$...), call)
  start <- check_par(par, call)
  module <- core_without_keras(call)
  control <- check_control(control, default_control(length(start), module), call)
  at <- function(x) stats::setNames(x * control$parscale, names(par))
  value_at <- function(x) check_value(fn(at(x), ...), call) / control$fnscale
  gradient_at <- if (is.null(gr)) {
    function(x) differences(value_at, x, control$ndeps)
  } else {
    factor <- control$parscale / control$fnscale
    function(x) check_gradient(gr(at(x), ...), start, call) * factor
  }
  found <- minimize(module, start / control$parscale, value_at, gradient_at, control, call)
  list(
    par = at(found$x),
    value = found$value * control$fnscale,
    counts = found$counts,
    convergence = found$end$convergence,
    message = found$end$message
  )
}

# R evaluates the functions and Python makes the steps, so that neither calls the other's
# functions: an error in `fn` is R's own.
minimize <- function(module, x, value_at, gradient_at, control, call) {
  settings <- lapply(control[python_control], as_python)
  run <- value_of(module$attempt("Minimization", python_numbers(x), settings), "argument", call)
  tell <- run$tell
  rate <- rate_of_step(control$learning_rate, call)
  show <- progress(control)
  counts <- c(`function` = 0L, gradient = 0L)
  repeat {
    step <- counts[["function"]]
    value <- value_at(x)
    if (step == 0) check_start(value * control$fnscale, call)
    show(step, value)
    gradient <- if (is.finite(value)) gradient_at(x) else rep(NaN, length(x))
    counts <- counts + c(1L, is.finite(value))
    told <- tell(value, python_numbers(gradient), as_python(rate(step)))
    value_of(told, "argument", call)
    if (!is.null(told$reason)) break
    x <- as.double(told$x)
  }
  best <- run$best()
  end <- optim_ends[[told$reason]]
  show(step, best$value, end)
  list(x = as.double(best$x), value = best$value, counts = counts, end = end)
}

optim_ends <- list(
  pgtol = list(convergence = 0L, message = "no element of the gradient is larger than pgtol"),
  reltol = list(convergence = 0L, message = "the value no longer changes by more than reltol"),
  xtol = list(convergence = 0L, message = "the parameters no longer move"),
  abstol = list(convergence = 0L, message = "the value is at most abstol"),
  maxit = list(convergence = 1L, message = "maxit was reached"),
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

# What Python checks and takes.
python_control <- c("maxit", "reltol", "abstol", "pgtol", "rho", "epsilon")

default_control <- function(length, module) {
  c(
    list(
      trace = 0, REPORT = 10, fnscale = 1, parscale = rep(1, length), ndeps = rep(1e-3, length),
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
  for (name in names(r_control)) {
    value <- checked[[name]]
    if (!are_finite(value, length(defaults[[name]])) || !all(r_control[[name]]$accepts(value))) {
      refuse(name, r_control[[name]]$requirement, value, call)
    }
  }
  checked
}

# What R itself uses, and Python never sees.
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
  if (length(par) == 0 || !are_finite(par, length(par))) {
    refuse("par", "a vector of finite numbers", par, call)
  }
  as.double(par)
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

# NA alone is logical.
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
  # Who replaces optim() by this would not see that these go to `fn`, when that takes all.
  extra <- intersect(c("method", "lower", "upper", "hessian"), extra)
  extra <- setdiff(extra, names(formals(args(fn))))
  if (length(extra)) {
    message <- sprintf("`%s` of optim() is no argument of adadelta_optim()", extra[[1]])
    fail(message, "argument", call)
  }
}

# A function of the step that gives the learning rate.
rate_of_step <- function(rate, call) {
  if (!is_rate_function(rate)) return(function(step) rate)
  # As optim() calls its functions: here the step is known, and nothing is compiled.
  if (is.function(rate) && identical(names(formals(args(rate))), "...")) return(rate)
  fun <- rate_function(rate, call)
  if (length(formals(args(fun))) == 0) function(step) fun() else fun
}

# A list of one, which reticulate would else make a number of.
python_numbers <- function(x) if (length(x) == 1) list(x) else x

differences <- function(value_at, x, steps) {
  vapply(seq_along(x), function(i) {
    ahead <- behind <- x
    ahead[[i]] <- x[[i]] + steps[[i]]
    behind[[i]] <- x[[i]] - steps[[i]]
    (value_at(ahead) - value_at(behind)) / (2 * steps[[i]])
  }, numeric(1))
}

# Shows what optim() shows.
progress <- function(control) {
  if (!control$trace) return(function(...) invisible())
  function(step, value, end = NULL) {
    if (!is.null(end)) {
      cat(sprintf("final  value %f\n", value))
      cat(if (end$convergence == 0) "converged" else end$message, "\n", sep = "")
    } else if (step == 0) {
      cat(sprintf("initial  value %f\n", value))
    } else if (step %% control$REPORT == 0) {
      cat(sprintf("iter%4d value %f\n", step, value))
    }
  }
}
