# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of the tiny world.

Every list holds distinct words, no word is in two lists (a test checks both), and the tokenizer
is trained until each one is a single token when a space stands before it.
"""

GIVEN = """
Adam Agnes Alan Alma Amir Anna Arno Asa Aziz Beata Ben Berta Boris Bruno Carl Celia Clara Cora
Cyril Dana David Della Dina Edgar Edna Elena Elias Emil Emma Erik Esther Ezra Fabio Felix Fiona
Flora Frank Freya Galen Gemma Georg Gita Grace Greta Gustav Hana Hanna Harold Hazel Hector Helga
Henry Hilda Hugo Ida Igor Ines Ingrid Irene Iris
""".split()

SURNAME = """
Abbott Acker Adler Ames Archer Arden Bailey Barnes Becker Bell Berg Blake Bolton Bowen Brandt
Burke Burton Cabot Calder Carver Chase Colby Conrad Craig Crane Dalton Darby Dawson Dekker Dixon
Doyle Drake Duncan Eaton Egan Ellis Emery Engel Evans Farrow Fenton Fischer Foley Forbes Foster
Fuller Garner Gibson Glover Gordon Graham Grant Gruber Haas Hale Hansen Harding Hayes Holt Keller
""".split()

CITIES = """
Paris Rome Lima Oslo Cairo Delhi Tokyo Quito Accra Berlin Madrid Lisbon Vienna Prague Warsaw
Dublin Athens Zurich Geneva Munich Milan Naples Turin Seville Bergen Tampere Riga Tallinn Vilnius
Krakow Gdansk Bremen Lyon Nice Porto Bilbao Havana Bogota Caracas Montreal Toronto Boston Denver
Austin Seattle Chicago Nairobi Lagos
""".split()

INSTRUMENTS = """
piano violin cello flute harp guitar trumpet trombone clarinet oboe bassoon tuba organ banjo lute
mandolin ukulele accordion harmonica saxophone xylophone marimba sitar zither viola fiddle bagpipe
bugle cornet recorder piccolo timpani drums cymbals gong bongo tabla lyre dulcimer harpsichord
""".split()

ANIMALS = """
cat dog horse goat sheep pig cow donkey camel llama jackal rabbit hamster ferret hedgehog parrot
canary pigeon falcon hawk raven goose duck turkey peacock swan tortoise lizard gecko snake frog
newt spider scorpion crab lobster squirrel badger weasel beaver
""".split()

CROPS = """
wheat barley oats rye maize rice cotton tobacco hemp flax tomatoes potatoes onions garlic leeks
carrots beets turnips radishes spinach lettuce cabbage kale celery fennel parsley basil mint
thyme sage apples pears plums cherries peaches grapes figs olives melons lemons
""".split()

FILLER_NOUNS = """
river harbour market bridge valley forest mountain garden library museum theatre station road
castle tower square church village island lake meadow canal bakery kitchen window door ceiling
table lantern candle curtain carpet basket bottle ladder hammer engine wagon train boat ship
letter newspaper book picture mirror clock bell blanket pillow coat hat umbrella street cloud
storm wind rain snow sun moon star morning evening winter summer autumn spring
""".split()

FILLER_ADJECTIVES = """
old new grey quiet small large narrow wide bright dark cold warm empty crowded wooden golden
silver broken distant ancient modern gentle heavy light green blue red yellow white black dusty
clean silent noisy famous hidden simple curious round tall
""".split()

FILLER_VERBS = """
waited slept remained changed moved opened closed shone faded returned disappeared stood leaned
rested trembled glowed drifted turned stopped settled vanished appeared
""".split()

FILLER_PLACES = "near behind above below around along".split()
