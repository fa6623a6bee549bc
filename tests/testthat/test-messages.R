# R's messages are made from the data of Python's messages, never from their text.

# Gives each of Python's messages that has data another text, while `frame` runs.
local_reworded <- function(frame = parent.frame()) {
  reticulate::py_run_string("
from adadelta._core.messages import Message

_as_it_was = Message.__new__

def _reworded(kind, text, *arguments, **fields):
    return _as_it_was(kind, 'None of the words, True or False: nan', *arguments, **fields)

Message.__new__ = _reworded
")
  withr::defer(reticulate::py_run_string("Message.__new__ = _as_it_was"), frame)
}

# Functions that raise an error, each named after the kind of message that it gives.
refused <- function() {
  built <- stepped()
  path <- withr::local_tempfile(fileext = ".safetensors")
  save_optimizer_state(built, path)
  other <- withr::local_tempfile(lines = "this is not what save_optimizer_state() writes")
  list(
    argument = function() optimizer_adadelta(use_ema = NA),
    argument = function() optimizer_adadelta(fused = "no"),
    argument = function() optimizer_adadelta(name = 1),
    argument = function() optimizer_adadelta(loss_scale_factor = -1),
    argument = function() adadelta_monitor(every = 0L),
    argument = function() adadelta_translate("nowhere", "torch"),
    argument = function() adadelta_optim(1, sum, control = list(rho = 2)),
    argument = function() convert_optimizer_state(path, path, keep_others = NA),
    together = function() optimizer_adadelta(clipnorm = 1, clipvalue = 2),
    unknown = function() optimizer_adadelta(roh = 1),
    unknown = function() optimizer_adadelta(nesterov = 1),
    decay = function() optimizer_adadelta(decay = 1),
    fixed = function() built$rho <- 0.5,
    no_equal = function() adadelta_translate("keras", "torch", weight_decay = 0.1),
    unbuilt = function() optimizer_state(optimizer_adadelta()),
    not_converted = function() convert_optimizer_state(path, path),
    other_file = function() read_optimizer_state(other)
  )
}

test_that("another sentence in Python changes nothing of what R says", {
  skip_without_keras()
  cases <- refused()
  said <- function() vapply(cases, function(code) conditionMessage(error_of(code())), "")
  before <- said()
  local_reworded()
  expect_match(reticulate::py_eval("str(Message('a text', 'argument'))"), "None of the words")
  expect_identical(said(), before)
  # A message about adadelta.torch, which exists in Python only, uses Python's words.
  of_r <- sub("takes `decoupled_weight_decay=True`", "", before, fixed = TRUE)
  expect_false(any(grepl("None|True|False|nan", of_r)))
})

test_that("there is a sentence for each kind of message, and for no other", {
  skip_without_keras()
  kinds <- reticulate::py_run_string("
def kinds(folder):
    import ast
    import pathlib

    found = set()
    for path in pathlib.Path(folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'Message':
                found.add(ast.literal_eval(node.args[1]))
    return sorted(found)
", local = TRUE)$kinds
  expect_setequal(names(sentences), kinds(file.path(python_folder(), "adadelta")))
})

test_that("messages are in the words of R", {
  said <- function(kind, ...) sentence(list(kind = kind, ...))
  came <- function(value) list(value = value)
  expect_identical(sentence("as it is: None, True"), "as it is: None, True")
  expect_identical(
    said("argument", argument = "a", requirement = list(TRUE, FALSE, NULL), received = came(2.5)),
    "`a` must be TRUE, FALSE or NULL; received 2.5"
  )
  requirement <- list("a number", "\"b\"", NULL)
  expect_identical(
    said("argument", argument = "a", requirement = requirement, received = came(1L)),
    "`a` must be a number, \"b\", or NULL; received 1"
  )
  expect_identical(
    said("argument", argument = "a", requirement = "a number", received = list(code = "<object>")),
    "`a` must be a number; received <object>"
  )
  expect_identical(
    said("together", arguments = c("a", "b", "c"), given = list(a = came(1), c = came("d"))),
    "Only one of `a`, `b` and `c` can be given; received a=1, c=\"d\""
  )
  expect_identical(
    said("unknown", argument = "a", owner = "It", near = NULL, known = letters[2:7]),
    "`a` is not an argument of It; it takes `b`, `c`, `d`, `e` and 2 others"
  )
  expect_identical(
    said("unknown", argument = "a", owner = "It", near = NULL, known = c("b", "c")),
    "`a` is not an argument of It; it takes `b`, `c`"
  )
  expect_match(said("rate_compiled", received = came(0.5)), "run_eagerly = TRUE; received 0.5$")
  expect_match(said("averages_lost", variables = "\"x\""), "^the averages of \"x\" became NaN")
  expect_match(
    said("other_file", file = "\"a\"", alternative = NULL),
    "^\"a\" is a safetensors file with something else: .* save_optimizer_state\\(\\)$"
  )
})

test_that("a message about a bad value is no longer than a few lines of a terminal", {
  long <- strrep("long", 100)
  for (requirement in c("a number", strrep("a number, or ", 12))) {
    text <- refusal("argument", requirement, long)
    expect_lte(nchar(text), 220)
    expect_match(text, "received \"long.*[.]{3}$")
  }
  came <- list(value = long)
  for (message in list(
    list(kind = "fixed", argument = "gradient_accumulation_steps", received = came),
    list(kind = "rate_compiled", received = came),
    list(kind = "decay", owner = "adadelta.tf_keras.Adadelta", received = came),
    list(kind = "averages_lost", variables = strrep("x", 45))
  )) expect_lte(nchar(sentence(message)), 200)
})

test_that("every sentence fits a few lines of a terminal", {
  came <- list(value = strrep("long ", 100))
  names <- sprintf("a_layer_with_a_long_name_%d", 1:40)
  problems <- list(paste("missing:", paste(names, collapse = ", ")), "another one")
  given <- list(clipnorm = came, clipvalue = came, global_clipnorm = came)
  cases <- list(
    list("argument", argument = "learning_rate", requirement = "a number", received = came),
    list("fixed", argument = "gradient_accumulation_steps", received = came),
    list("rate_compiled", received = came),
    list("together", arguments = names(given), given = given),
    list("unknown", argument = "a", owner = "adadelta.Adadelta", known = names),
    list("decay", owner = "adadelta.Adadelta", received = came),
    list("averages_lost", variables = paste0("\"", strrep("x", 30), "\" and 10 more")),
    list("not_converted", problems = problems),
    list("not_fitting", problems = problems)
  )
  said <- vapply(cases, function(case) {
    names(case)[[1]] <- "kind"
    sentence(case)
  }, "")
  expect_identical(said[nchar(said) > 200], character())
  expect_match(said[[9]], "name_1, .*[.]{3}; 1 more \\(all are in `problems` of this error")
})

test_that("an error has all the problems that its message has no room for", {
  skip_without_keras()
  optimizer <- stepped()
  state <- optimizer_state(optimizer)
  path <- withr::local_tempfile(fileext = ".safetensors")
  save_optimizer_state(optimizer, path)
  error <- error_of(convert_optimizer_state(path, path, rename = c(a = "b", c = "d")))
  expect_match(conditionMessage(error), "^The state can't be converted: ")
  expect_length(error$problems, 2)
  expect_match(error$problems[[1]], "unknown: a, c")
  expect_null(error_of(optimizer_adadelta(rho = 2))$problems)
})
