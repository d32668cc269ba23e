"""The package has exactly the names that it declares, and each is documented."""

import pqlog


def test_all_is_sorted_and_complete():
    names = [name for name in vars(pqlog) if not name.startswith("_")]
    public = {name for name in names if not isinstance(getattr(pqlog, name), type(pqlog))}
    assert set(pqlog.__all__) == public
    assert len(set(pqlog.__all__)) == len(pqlog.__all__)


def test_every_public_name_has_a_docstring_and_methods_have_examples():
    bare = []
    results = (
        pqlog.ClaimInfo,
        pqlog.ClientInfo,
        pqlog.Migration,
        pqlog.Moved,
        pqlog.Salvage,
    )  # documented where they are defined
    for name in pqlog.__all__:
        thing = getattr(pqlog, name)
        if not thing.__doc__:
            bare.append(name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            continue
        if thing not in results and name != "load_ipython_extension" and ">>>" not in thing.__doc__:
            bare.append(f"{name}: an example")
        members = vars(thing) if isinstance(thing, type) and thing is not pqlog.Codec else {}
        for attribute, member in members.items():
            if callable(member) and not attribute.startswith("_") and ">>>" not in (member.__doc__ or ""):
                bare.append(f"{name}.{attribute}: an example")
    assert not bare
