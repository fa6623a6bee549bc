test_that("the citation names the paper and this version", {
  cited <- citation("adadelta")
  expect_length(cited, 2)
  expect_identical(cited[[1]]$doi, "10.48550/arXiv.1212.5701")
  text <- format(cited, style = "text")
  expect_match(text[[1]], "Zeiler.*2012.*arXiv:1212.5701")
  expect_match(text[[2]], as.character(packageVersion("adadelta")), fixed = TRUE)
})
