#' The Adadelta optimizer
#'
#' Makes an optimizer for Keras models. Adadelta (Zeiler 2012) chooses the step
#' length of each weight from moving averages of its squared gradients and its
#' squared updates. For a parameter \eqn{x}{x} with gradient \eqn{g}{g}, and
#' averages \eqn{v}{v} and \eqn{u}{u} that start at 0, a step is
#' \deqn{v \leftarrow \rho v + (1 - \rho) g^2}{v <- rho v + (1 - rho) g^2}
#' \deqn{d \leftarrow g \sqrt{u + \epsilon} / \sqrt{v + \epsilon}}{
#'   d <- g sqrt(u + epsilon) / sqrt(v + epsilon)}
#' \deqn{u \leftarrow \rho u + (1 - \rho) d^2}{u <- rho u + (1 - rho) d^2}
#' \deqn{x \leftarrow x - \mathit{learning\_rate}\, d}{x <- x - learning_rate d}
#'
#' The default learning rate, 0.001, is that of Keras, so that this optimizer can
#' replace Keras' own without changing the results. The paper uses 1, and most
#' models train far better with that: at 0.001 the weights hardly move.
#'
#' The arguments are applied in this order: the gradients are divided by
#' `loss_scale_factor`, accumulated over `gradient_accumulation_steps` calls,
#' negated by `maximize`, and clipped; then the weights decay, the step above is
#' made, and the EMA is updated.
#'
#' @section R functions as learning rate: They are called at every step and must
#'   return a finite number of at least 0. Their warnings are signaled when
#'   `fit()` has returned. An error in one ends the training: that step changes
#'   nothing, and when `fit()` has returned, the error is signaled with the class
#'   `adadelta_error_function` added. If a function returns something else, such
#'   as `NA`, the training ends in the same way, with an error of class
#'   `adadelta_error_argument` that names the call in which you gave the
#'   function. Compiled training on JAX and TensorFlow would call them from
#'   threads in which R can't run, so it is an error: compile the model with
#'   `run_eagerly = TRUE`. They can't be saved: a saved model that uses one loads
#'   in another session with `compile = FALSE` only. The learning rate schedules
#'   of Keras (`keras$optimizers$schedules`) have none of these limits and are
#'   faster.
#'
#' @section Errors: Every error is of class `adadelta_error` and names the call
#'   that it is about. A bad argument is an error of class
#'   `adadelta_error_argument` that names the argument, what it accepts and what
#'   was given. If Python or Keras is missing or too old, the error has class
#'   `adadelta_error_python` and says what to do. A reticulate that can't
#'   exchange arrays with the NumPy in use is a warning of class
#'   `adadelta_warning`.
#'
#' @section Conditions during training: Warnings, errors and interrupts in R code
#'   that Python calls, such as a callback or a learning rate, are signaled when
#'   the call into Python has returned, so that `tryCatch()` around `fit()` is
#'   safe. All warnings, such as those of [adadelta_monitor()], are of class
#'   `adadelta_warning`. If Keras' `load_model()` or `load_weights()` leaves out
#'   an optimizer's state because it does not fit, the warning is of class
#'   `adadelta_warning_state`, too. Errors are of class `adadelta_error_function`
#'   where your own code failed, and of class `adadelta_error_argument` where a
#'   learning rate function returned no learning rate.
#'
#' @section Sparse gradients: On TensorFlow and torch, a sparse gradient, such as
#'   that of an embedding on TensorFlow, gives the same result as a dense one, but
#'   the step computes only the rows that have a gradient. The other rows follow
#'   when they are used, and when the state is read or saved. With `weight_decay`,
#'   `use_ema`, `gradient_accumulation_steps` or a constraint, every step computes
#'   all rows; [kernel_info()] of the optimizer shows the reason. On JAX, the
#'   gradient of an embedding is dense, so a step costs the whole table. If that
#'   takes too long, use TensorFlow, make the table smaller, for example without
#'   rare words, or leave it untrained with `trainable = FALSE`.
#'
#' @section Several processes: A process that was forked after Keras was loaded,
#'   as by `parallel::mclapply()`, can hang when it trains, with any optimizer,
#'   because it lacks the threads of JAX and TensorFlow. The functions of this
#'   package warn once in such a process, with a warning of class
#'   `adadelta_warning_fork`. `vignette("training", "adadelta")` shows how to work
#'   in parallel.
#'
#' @section Saving: `saveRDS()` and `save()` keep nothing of an optimizer, which
#'   is a Python object. Use [save_optimizer_state()], or
#'   [save_model_atomically()] for the whole model. Using an optimizer from such a
#'   file is an error of class `adadelta_error_state`.
#'
#' @section The R package keras3: It has a function with the same name, which
#'   makes Keras' own optimizer. If both packages are attached, write
#'   `adadelta::optimizer_adadelta()`.
#'
#' @param learning_rate How long the steps are: a finite number of at least 0, a
#'   learning rate schedule of Keras, a scalar Keras variable, an R function
#'   without arguments that returns the rate, or an R function of one argument,
#'   the number of steps so far, which can be a formula such as
#'   `~ 0.1 / (1 + .x)`. Default: 0.001.
#' @param rho The decay rate of both averages: at least 0 and less than 1. The
#'   larger it is, the more slowly they change. Default: 0.95.
#' @param epsilon Added inside both square roots: a finite number greater than 0.
#'   The first step is about `learning_rate * sqrt(epsilon / (1 - rho))` long,
#'   unless the gradient is smaller than that root. Default: 1e-7.
#' @param weight_decay `NULL`, or a finite number of at least 0: each update
#'   subtracts `learning_rate * weight_decay * weight` from the weight. Default:
#'   `NULL`, which means no decay. To exclude every variable whose path contains
#'   a word, call `optimizer$exclude_from_weight_decay(var_names = "bias")`
#'   before training.
#' @param clipnorm `NULL`, or a number greater than 0: the gradient of a variable
#'   is scaled down to this norm where its norm is larger. Give at most one of
#'   `clipnorm`, `clipvalue` and `global_clipnorm`. `Inf` means no clipping.
#'   Default: `NULL`.
#' @param clipvalue `NULL`, or a number greater than 0: each element of a
#'   gradient is limited to this magnitude. Default: `NULL`.
#' @param global_clipnorm `NULL`, or a number greater than 0: all gradients are
#'   scaled down by the same factor where their joint norm is larger. Default:
#'   `NULL`.
#' @param use_ema `TRUE` to keep an exponential moving average (EMA) of the
#'   weights. It replaces the weights when `fit()` ends. Default: `FALSE`.
#' @param ema_momentum The momentum of the EMA, from 0 to 1. With 0.99 it
#'   averages over about 100 updates. Default: 0.99.
#' @param ema_overwrite_frequency `NULL`, or a whole number of at least 1: the EMA
#'   replaces the weights after every so many updates. Default: `NULL`, which
#'   means at the end only.
#' @param name The optimizer's name: a string without `/`, not empty, or `NULL` for
#'   `"adadelta"`. Default: `"adadelta"`.
#' @param ... Further arguments of the Python class, by name, each of them `FALSE`
#'   or `TRUE`: `maximize`, to maximize the loss instead of minimizing it
#'   (default: `FALSE`); `decoupled_weight_decay`, to subtract the decay from the
#'   weights as Keras does, instead of adding an L2 penalty to the gradients as
#'   torch does (default: `TRUE`); `skip_nonfinite`, to skip steps in which a
#'   gradient is not finite (default: `FALSE`); `fused`, to use a compiled kernel,
#'   which computes the step in one pass over memory, for all variables (`TRUE`,
#'   an error if that is not possible) or for none (`FALSE`; default: `NULL`,
#'   where it is supported and faster, see [kernel_info()]). Other names are
#'   errors.
#' @param loss_scale_factor `NULL`, or a finite number greater than 0 by which
#'   the loss is multiplied and the gradients are divided, or `"dynamic"` for a
#'   factor that adjusts itself to half precision. Default: `NULL`.
#' @param gradient_accumulation_steps `NULL`, or a whole number of at least 1: how
#'   many calls to average the gradients over before the weights are updated. All
#'   calls have the same weight, whatever the size of their batch. Learning rate
#'   schedules count calls, `ema_overwrite_frequency` counts updates. As in Keras,
#'   the gradients are added up first, so their sum must be finite too: at most
#'   3.4e38 in float32. Default: `NULL`, which is 1.
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
#'   [adadelta_optim()] to minimize functions, [install_adadelta()] and
#'   [adadelta_sitrep()] for what it needs, [kernel_info()].
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
