# Each target is ./run's of the same name; pass arguments as ARGS="tests/unit -k limits".
TARGETS = help setup demo serve cluster test test-more bench simulate attack screenshots lint types format lock
.PHONY: $(TARGETS)
$(TARGETS):
	@./run $@ $(ARGS)
