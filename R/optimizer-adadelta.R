#' The Adadelta optimizer
#'
#' Makes a Keras optimizer that trains with Adadelta (Zeiler 2012), which gives
#' each parameter its own step length from running averages of its squared
#' gradients and of its squared updates. For a parameter \eqn{x}{x} with gradient
#' \eqn{g}{g}, and averages \eqn{v}{v} and \eqn{u}{u} that start at 0, a step is
#' \deqn{v \leftarrow \rho v + (1 - \rho) g^2}{v <- rho v + (1 - rho) g^2}
#' \deqn{d \leftarrow g \sqrt{u + \epsilon} / \sqrt{v + \epsilon}}{
#'   d <- g sqrt(u + epsilon) / sqrt(v + epsilon)}
#' \deqn{u \leftarrow \rho u + (1 - \rho) d^2}{u <- rho u + (1 - rho) d^2}
#' \deqn{x \leftarrow x - \mathit{learning\_rate}\, d}{x <- x - learning_rate d}
#'
#' The default learning rate, 0.001, is that of Keras, so that this optimizer and
#' Keras' own can take each other's place in a program. The paper has none, which
#' is a rate of 1, and most models train far better with that: at 0.001 they
#' hardly move.
#'
#' The arguments work together in this order: the gradients are divided by
#' `loss_scale_factor`, collected over `gradient_accumulation_steps` calls,
#' negated by `maximize`, and clipped; then the weights decay, the step above is
#' made, and the moving average follows.
#'
#' @section R functions as learning rate: They are called at every step, and have
#'   to return a finite number of at least 0. Their warnings are signaled when
#'   `fit()` has returned. An error in one ends the training: that step changes
#'   nothing, and when `fit()` has returned, the error is signaled with the class
#'   `adadelta_error_function` added. If a function returns something else, such
#'   as `NA`, the training ends in the same way, with an error of class
#'   `adadelta_error_argument` that names the call in which you gave the function.
#'   Compiled training on JAX and
#'   TensorFlow would call them from threads where R can't run, and refuses them:
#'   compile the model with `run_eagerly = TRUE`. They can't be saved: a saved
#'   model that uses one loads in another session with `compile = FALSE` only.
#'   Keras' own schedules (`keras$optimizers$schedules`) have neither limit, and
#'   are faster.
#'
#' @section Errors: Every error is of class `adadelta_error` and names the call
#'   that it is about. A bad argument is an error of class
#'   `adadelta_error_argument` that says which argument it is, what it takes and
#'   what came. A missing or unfit Python or Keras is one of class
#'   `adadelta_error_python` that says what to do. A reticulate that can't
#'   exchange arrays with the NumPy in use is a warning of class
#'   `adadelta_warning`.
#'
#' @section Conditions during training: Warnings, errors and interrupts in R code
#'   that Python calls, as a callback or a learning rate, are signaled when the
#'   call into Python has returned, so that `tryCatch()` around `fit()` is safe. All
#'   warnings are of class `adadelta_warning`: those of [adadelta_monitor()], and
#'   of class `adadelta_warning_state` those of Keras' `load_model()` and
#'   `load_weights()` about an optimizer's state that does not fit and was left
#'   out. Errors are of class `adadelta_error_function` where your own code
#'   failed, and of class `adadelta_error_argument` where a learning rate function
#'   returned no learning rate.
#'
#' @section Several processes: A process that was forked after Keras was loaded, as
#'   by `parallel::mclapply()`, can hang when it trains, with any optimizer: it lacks
#'   the threads of JAX and TensorFlow. This function and the others of this package
#'   warn there, once, with a warning of class `adadelta_warning_fork`.
#'   `vignette("training", "adadelta")` shows how to work in parallel.
#'
#' @section Saving: `saveRDS()` and `save()` keep nothing of an optimizer, which is a
#'   Python object. Use [save_optimizer_state()], or [save_model_atomically()] for the
#'   whole model. An optimizer that such a file gives back is an error of class
#'   `adadelta_error_state` when it is used.
#'
#' @section The R package keras3: It has a function of this name, which makes
#'   Keras' own optimizer. Where both packages are attached the one attached last
#'   is found: write `adadelta::optimizer_adadelta()`.
#'
#' @param learning_rate How long the steps are: a finite number of at least 0, a
#'   learning rate schedule of Keras, a scalar Keras variable, an R function
#'   without arguments that returns the rate, or an R function of one argument,
#'   the number of steps so far, which can be a formula such as
#'   `~ 0.1 / (1 + .x)`. Default: 0.001.
#' @param rho How slowly both averages change: at least 0 and less than 1.
#'   Default: 0.95.
#' @param epsilon What is added inside both square roots: a finite number greater
#'   than 0. The first step is about `learning_rate * sqrt(epsilon / (1 - rho))`
#'   long, unless the gradient is smaller than that root. Default: 1e-7.
#' @param weight_decay `NULL`, or a finite number of at least 0: the share of
#'   each weight that is taken away at each step, times the learning rate.
#'   Default: `NULL`, which is none. Before training,
#'   `optimizer$exclude_from_weight_decay(var_names = "bias")` leaves out every
#'   variable with that word in its path.
#' @param clipnorm `NULL`, or a number greater than 0: the norm that no gradient
#'   may exceed. Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be
#'   given; `Inf` means no clipping. Default: `NULL`.
#' @param clipvalue `NULL`, or a number greater than 0: the magnitude that no
#'   element of a gradient may exceed. Default: `NULL`.
#' @param global_clipnorm `NULL`, or a number greater than 0: the norm that all
#'   gradients together may not exceed. Default: `NULL`.
#' @param use_ema `TRUE` to keep an exponential moving average of the weights,
#'   which takes their place when `fit()` ends. Default: `FALSE`.
#' @param ema_momentum How slowly that average changes: from 0 to 1. Default:
#'   0.99.
#' @param ema_overwrite_frequency `NULL`, or a whole number of at least 1: after
#'   how many updates the weights are overwritten by their average, again and
#'   again. Default: `NULL`, which is at the end only.
#' @param name The optimizer's name: a string without `/`, not empty, or `NULL` for
#'   `"adadelta"`. Default: `"adadelta"`.
#' @param ... Further arguments of the Python class, by name, each of them
#'   `FALSE` or `TRUE`: `maximize`, to ascend instead of to descend (default:
#'   `FALSE`); `decoupled_weight_decay`, to take the decay from the weights as
#'   Keras does, instead of adding it to the gradients as torch does (default:
#'   `TRUE`); `skip_nonfinite`, to skip steps in which a gradient is not finite
#'   (default: `FALSE`); `fused`, to make the step by a kernel in one pass over
#'   memory for every variable, or an error, or for none (default: `NULL`, which is
#'   wherever one serves and gains something: see [kernel_info()]). Other names are
#'   errors.
#' @param loss_scale_factor `NULL`, or a finite number greater than 0 by which
#'   the loss is multiplied and the gradients are divided, or `"dynamic"` for a
#'   factor that adjusts itself to half precision. Default: `NULL`.
#' @param gradient_accumulation_steps `NULL`, or a whole number of at least 1: of
#'   how many calls the mean gradient is taken for one update. Calls weigh the
#'   same, whatever the size of their batch. Schedules count calls,
#'   `ema_overwrite_frequency` counts updates. As in Keras, the gradients are
#'   added up first, so their sum must be finite too: at most 3.4e38 in float32.
#'   Default: `NULL`, which is 1.
#'
#' @return A Keras optimizer: a Python object of class `adadelta.Adadelta`, for
#'   the `optimizer` argument of a model's `compile()`. Its method `get_config()`
#'   returns a list that makes the same optimizer again:
#'   `do.call(optimizer_adadelta, optimizer$get_config())`.
#'
#' @references
#' Zeiler, M. D. (2012). ADADELTA: An Adaptive Learning Rate Method.
#' \doi{10.48550/arXiv.1212.5701}
#'
#' Keras' own documentation of the arguments:
#' <https://keras.io/api/optimizers/adadelta/>
#'
#' @seealso [adadelta_translate()] for the arguments of other frameworks,
#'   [adadelta_optim()] for functions, [install_adadelta()] and [adadelta_sitrep()]
#'   for what it needs, [kernel_info()]
#' @export
#' @examplesIf keras_available()
#' optimizer_adadelta(learning_rate = 1, weight_decay = 0.01)
#'
#' # A rate that halves every 1000 steps
#' optimizer_adadelta(function(step) 0.5^(step / 1000))
#'
#' # How far a car goes on a gallon, by its weight and power
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#' history <- model$fit(cars[, 2:3], cars[, 1, drop = FALSE], epochs = 2L, verbose = 0L)
#' unlist(history$history$loss)
#'
#' # An error that names the argument
#' try(optimizer_adadelta(rho = 1.5))
optimizer_adadelta <- function(learning_rate = 0.001,
                               rho = 0.95,
                               epsilon = 1e-07,
                               weight_decay = NULL,
                               clipnorm = NULL,
                               clipvalue = NULL,
                               global_clipnorm = NULL,
                               use_ema = FALSE,
                               ema_momentum = 0.99,
                               ema_overwrite_frequency = NULL,
                               name = "adadelta",
                               ...,
                               loss_scale_factor = NULL,
                               gradient_accumulation_steps = NULL) {
  call <- sys.call()
  extra <- check_names(list(...), call)
  module <- core(call)
  config <- list(
    learning_rate = as_python_rate(learning_rate, call),
    rho = as_python(rho),
    epsilon = as_python(epsilon),
    weight_decay = as_python(weight_decay),
    clipnorm = as_python(clipnorm),
    clipvalue = as_python(clipvalue),
    global_clipnorm = as_python(global_clipnorm),
    use_ema = as_python(use_ema),
    ema_momentum = as_python(ema_momentum),
    ema_overwrite_frequency = as_python(ema_overwrite_frequency),
    name = as_python(name),
    loss_scale_factor = as_python(loss_scale_factor),
    gradient_accumulation_steps = as_python(gradient_accumulation_steps)
  )
  config <- c(config, Map(as_python_extra, extra, names(extra)))
  value_of(module$attempt("make", config), "argument", call)
}
