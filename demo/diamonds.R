# What does a diamond cost? A small network learns it from 53,940 of them, and we look at what
# Adadelta's learning rate does.
#
# It takes about half a minute and writes adadelta-diamonds.png into the folder that the environment
# variable ADADELTA_DEMO_OUTPUT names, or else into the working directory.

library(adadelta)
library(ggplot2)
if (Sys.getenv("TF_CPP_MIN_LOG_LEVEL") == "") Sys.setenv(TF_CPP_MIN_LOG_LEVEL = "3")
keras <- reticulate::import("keras")

# ---- The data: a fifth is kept for testing ----

# 20 stones lack a measurement.
stones <- subset(as.data.frame(ggplot2::diamonds), x > 0 & y > 0 & z > 0)

set.seed(1)
is_test <- seq_len(nrow(stones)) %in% sample(nrow(stones), nrow(stones) %/% 5)

# Prices and sizes differ by factors, so their logarithms are used. Cut, colour and clarity become
# one column per level. The network and the linear model get the same columns.
columns <- model.matrix(
  ~ log(carat) + log(x) + log(y) + log(z) + cut + color + clarity, stones,
  contrasts.arg = lapply(stones[c("cut", "color", "clarity")], contrasts, contrasts = FALSE)
)[, -1]
columns <- scale(columns, colMeans(columns[!is_test, ]), apply(columns[!is_test, ], 2, sd))

log_price <- log(stones$price)
center <- mean(log_price[!is_test])
spread <- sd(log_price[!is_test])
target <- matrix((log_price - center) / spread)

dollars_off <- function(price, predicted) mean(abs(price - predicted))

# ---- The yardstick: a linear model ----

linear <- lm.fit(cbind(1, columns[!is_test, ]), target[!is_test])
coefficients <- ifelse(is.na(linear$coefficients), 0, linear$coefficients)
linear_predicted <- exp(drop(cbind(1, columns[is_test, ]) %*% coefficients) * spread + center)
linear_off <- dollars_off(stones$price[is_test], linear_predicted)

# ---- The network: the same first weights and the same order of the data for each optimizer ----

epochs <- 20L

# The mean absolute error in dollars, computed by Keras after each epoch.
off <- function(y_true, y_pred) {
  price <- function(y) keras$ops$exp(keras$ops$add(keras$ops$multiply(y, spread), center))
  keras$ops$mean(keras$ops$abs(keras$ops$subtract(price(y_true), price(y_pred))))
}

train <- function(name, optimizer) {
  cat("\n", name, "\n", sep = "")
  keras$utils$set_random_seed(1L)
  model <- keras$Sequential(list(
    keras$layers$Input(shape = list(ncol(columns))),
    keras$layers$Dense(64L, activation = "relu"),
    keras$layers$Dense(64L, activation = "relu"),
    keras$layers$Dense(1L)
  ))
  metric <- keras$metrics$MeanMetricWrapper(off, name = "off")
  model$compile(optimizer = optimizer, loss = "mse", metrics = list(metric))
  history <- model$fit(
    columns[!is_test, ], target[!is_test, , drop = FALSE],
    validation_data = list(columns[is_test, ], target[is_test, , drop = FALSE]),
    epochs = epochs, batch_size = 128L, verbose = 0L,
    callbacks = list(adadelta_progress(show = TRUE))
  )$history
  data.frame(
    optimizer = name, epoch = seq_len(epochs),
    loss = unlist(history$loss), off = unlist(history$val_off)
  )
}

calls <- epochs * ceiling(sum(!is_test) / 128)
falling <- keras$optimizers$schedules$CosineDecay(1, decay_steps = as.integer(calls))

ours_falling <- train("Ours, learning rate falling from 1 to 0", optimizer_adadelta(falling))
ours_one <- train("Ours, learning rate 1", optimizer_adadelta(1))
ours_default <- train("Ours, at its default of 0.001", optimizer_adadelta())
keras_default <- train("Keras' own Adadelta, at its default of 0.001", keras$optimizers$Adadelta())

# ---- What came out ----

runs <- list(ours_falling, ours_one, ours_default, keras_default)
last <- function(run) run[epochs, "off"]
results <- data.frame(
  model = c("Linear model", vapply(runs, function(run) run$optimizer[[1]], "")),
  dollars = round(c(linear_off, vapply(runs, last, 0)))
)
cat("\nMean absolute error in dollars, on", sum(is_test), "test diamonds:\n")
print(results, row.names = FALSE, right = FALSE)

# ---- The picture ----

# Ours and Keras' at the same rate lie on each other: one is drawn wide, the other dashed.
colors <- c("#009E73", "#0072B2", "#D55E00", "grey75", "grey35")
labels <- data.frame(
  epoch = epochs + 0.4,
  off = c(last(ours_falling) * 0.94, last(ours_one) * 1.03, last(ours_default) * 1.12,
          last(ours_default) * 0.93, linear_off),
  color = c(colors[1:3], "grey50", colors[[5]]),
  text = c("ours, rate falling from 1 to 0", "ours, rate 1", "ours, default rate 0.001",
           "Keras, default rate 0.001", "linear model")
)
values <- c(last(ours_falling), last(ours_one), last(ours_default), last(keras_default), linear_off)
labels$text <- paste0(labels$text, ": $", format(round(values), big.mark = ",", trim = TRUE))

picture <- ggplot(mapping = aes(epoch, off)) +
  annotate(
    "segment", x = 1, xend = epochs, y = linear_off, yend = linear_off,
    color = colors[[5]], linetype = "dotted", linewidth = 0.8
  ) +
  geom_line(data = keras_default, color = colors[[4]], linewidth = 2.4) +
  geom_line(data = ours_default, color = colors[[3]], linewidth = 0.9, linetype = "dashed") +
  geom_line(data = ours_one, color = colors[[2]], linewidth = 0.9) +
  geom_line(data = ours_falling, color = colors[[1]], linewidth = 0.9) +
  geom_text(aes(label = text), labels, color = labels$color, hjust = 0, size = 3.7) +
  scale_x_continuous("epoch", breaks = c(1, seq(5, epochs, by = 5)), minor_breaks = NULL) +
  scale_y_log10(
    "mean absolute error",
    breaks = c(300, 400, 600, 1000, 2000, 3000), minor_breaks = NULL,
    labels = function(dollars) paste0("$", format(dollars, big.mark = ",", trim = TRUE))
  ) +
  coord_cartesian(xlim = c(1, epochs), clip = "off") +
  labs(
    title = "Adadelta wants a learning rate near 1: at the default 0.001 it creeps",
    subtitle = sprintf(
      "How far predicted prices of %s test diamonds are off, in dollars (logarithmic)",
      format(sum(is_test), big.mark = ",")
    )
  ) +
  theme_minimal(base_size = 12) +
  theme(
    plot.margin = margin(12, 225, 12, 12),
    plot.title = element_text(face = "bold"),
    plot.title.position = "plot"
  )

path <- file.path(Sys.getenv("ADADELTA_DEMO_OUTPUT", unset = getwd()), "adadelta-diamonds.png")
ggsave(path, picture, width = 9.5, height = 5, dpi = 150, bg = "white")
cat("\nThe training curves are in ", path, "\n\n", sep = "")

# ---- Did it work? ----

check <- function(what, holds) {
  cat("check: ", if (isTRUE(holds)) "ok " else "FAILED ", what, "\n", sep = "")
}
check("the picture is written", file.exists(path) && file.size(path) > 10000)
check("all losses are finite", all(vapply(runs, function(run) all(is.finite(run$loss)), NA)))
check("at rate 1 the test error is below the linear model's", last(ours_one) < linear_off)
check("at rate 1 it is below that of Keras' defaults", last(ours_one) < last(keras_default))
check("with a falling rate it is below the linear model's", last(ours_falling) < linear_off)
agreement <- last(ours_default) / last(keras_default)
check("at the same rate ours and Keras' agree", abs(agreement - 1) < 0.01)
