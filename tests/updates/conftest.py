from training.toys import one_thread

__all__ = ["one_thread"]
