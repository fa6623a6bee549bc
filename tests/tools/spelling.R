# Fails on any word of the package's texts that no dictionary knows, nor inst/WORDLIST.
unknown <- spelling::spell_check_package()
print(unknown)
quit(status = as.integer(nrow(unknown) > 0))
