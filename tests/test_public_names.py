"""What the package says it has is what it has, and each name explains itself."""

import pqlog


def test_all_is_sorted_and_complete():
    names = [name for name in vars(pqlog) if not name.startswith("_")]
    public = {name for name in names if not isinstance(getattr(pqlog, name), type(pqlog))}
    assert set(pqlog.__all__) == public
    assert len(set(pqlog.__all__)) == len(pqlog.__all__)


def test_every_public_name_has_a_docstring_and_methods_have_examples():
    bare = []
    for name in pqlog.__all__:
        thing = getattr(pqlog, name)
        if not thing.__doc__:
            bare.append(name)
        if isinstance(thing, type) and not issubclass(thing, Exception):
            for attribute, member in vars(thing).items():
                if callable(member) and not attribute.startswith("_") and not (member.__doc__ or "").strip():
                    bare.append(f"{name}.{attribute}")
    assert not bare
